"""Import modules without a search for garbage among them."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from finetune.without_compiler import import_without_compiler


@contextmanager
def quick_imports() -> Iterator[None]:
    """Hold the garbage collector while modules are imported.

    Importing makes hundreds of thousands of objects that stay. The collector goes through them again and
    again, which takes a sixth of the time of `import torch`.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def quick_torch_imports() -> Iterator[None]:
    """Hold the garbage collector while modules are imported, of which some import torch and torchvision."""
    with quick_imports():
        import_without_compiler("torchvision.transforms.v2")
        yield
