"""The commands, one module or folder each; the command line and the Python API call the same functions."""
