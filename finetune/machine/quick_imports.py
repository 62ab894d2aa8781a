"""Import modules that import torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from finetune.errors import MachineError
from finetune.imports import import_without_compiler, quick_imports


@contextmanager
def quick_torch_imports() -> Iterator[None]:
    """Hold the garbage collector while modules are imported, of which some import torch and torchvision.

    Raises:
        MachineError: the two do not fit each other, as one from PyPI beside one for CPUs.
    """
    with quick_imports():
        try:
            import_without_compiler("torchvision.transforms.v2")
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
            raise MachineError(
                f"torchvision {version('torchvision')} does not fit torch {version('torch')}: {error}.\n"
                "Install both again, from one index: pip install --force-reinstall torch torchvision"
            ) from None
        yield
