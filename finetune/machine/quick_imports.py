"""Import modules that import torch."""

from collections.abc import Iterator
from contextlib import contextmanager

from finetune.imports import import_without_compiler, quick_imports


@contextmanager
def quick_torch_imports() -> Iterator[None]:
    """Hold the garbage collector while modules are imported, of which some import torch and torchvision."""
    with quick_imports():
        import_without_compiler("torchvision.transforms.v2")
        yield
