"""The machine: devices, cores, signals, files."""
