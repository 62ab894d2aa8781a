"""What ships inside the package, so that a first run needs no network: one data set and one weights file."""
