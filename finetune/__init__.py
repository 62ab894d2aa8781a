"""Transfer learning on images from one YAML file, done right."""

from finetune.version import VERSION

__all__ = ["__version__"]

__version__ = VERSION
