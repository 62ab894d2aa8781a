"""Import modules without looking for garbage among them, and torchvision without torch's compiler."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any


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
        import_torchvision()
        yield


def import_torchvision() -> None:
    """Import torchvision without torch's compiler, which would take nearly as long as torch itself.

    torchvision asks the compiler for one function, which matters where objects are detected on a GPU, and to
    leave another one uncompiled. Nothing here is compiled with either, so stand-ins answer.
    """
    if "torchvision" in sys.modules or "torch._dynamo" in sys.modules:
        return
    import torch.onnx  # noqa: F401  torchvision imports it as well, and it must not meet the stand-ins

    if "torch._dynamo" in sys.modules:
        return
    compiler, utils = ModuleType("torch._dynamo"), ModuleType("torch._dynamo.utils")
    vars(compiler)["disable"] = _leave_as_it_is
    vars(utils)["is_compile_supported"] = _is_compile_supported
    stand_ins = {module.__name__: module for module in (compiler, utils)}
    sys.modules.update(stand_ins)
    try:
        # A version that needs more of the compiler is imported as it is, with the first that names it.
        with suppress(ImportError, AttributeError):
            import torchvision.transforms.v2  # noqa: F401
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _leave_as_it_is(function: Any, recursive: bool = True, *, reason: str | None = None) -> Any:
    return function


def _is_compile_supported(device_type: str) -> Any:
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device_type)
