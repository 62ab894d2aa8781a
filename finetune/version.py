"""The version of the package; `pyproject.toml` and `finetune.__version__` read it here."""

VERSION = "1.0.0rc1"
