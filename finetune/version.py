"""The version of the package; `pyproject.toml` and `finetune.__version__` read it here."""

VERSION = "0.1.0"
