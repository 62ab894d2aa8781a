"""Import torchvision and timm without torch's compiler."""

import sys
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any


def import_without_compiler(name: str) -> None:
    """Import torchvision or timm without torch's compiler, which takes nearly as long as torch itself.

    They ask the compiler to leave some functions uncompiled, and torchvision for another one. The first is
    torch's own, that waits for the compiler until it is called; the second is handed on when it is called.
    Where a program compiles, it does what it would have done.
    """
    if name.partition(".")[0] in sys.modules or "torch._dynamo" in sys.modules:
        return
    import torch.onnx  # noqa: F401  torchvision imports it as well, and it must not meet the stand-ins

    if "torch._dynamo" in sys.modules:
        return
    compiler, utils = ModuleType("torch._dynamo"), ModuleType("torch._dynamo.utils")
    vars(compiler)["disable"] = _disable
    vars(utils)["is_compile_supported"] = _is_compile_supported
    stand_ins = {module.__name__: module for module in (compiler, utils)}
    sys.modules.update(stand_ins)
    try:
        # A version that needs more of the compiler is imported as it is, with the first that names it.
        with suppress(ImportError, AttributeError):
            import_module(name)
    finally:
        for stand_in in stand_ins:
            del sys.modules[stand_in]


def _disable(function: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    if isinstance(function, type):
        raise ImportError("a class is left uncompiled by the compiler itself alone")
    from torch._compile import _disable_dynamo

    return _disable_dynamo(function, recursive)


def _is_compile_supported(device_type: str) -> Any:
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device_type)
