"""Transfer learning on images from one YAML file, done right."""

__version__ = "0.1.0"
