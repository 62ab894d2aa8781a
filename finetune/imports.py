"""Import modules quickly: without a search for garbage among them, and without torch's compiler."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


@contextmanager
def quick_imports() -> Iterator[None]:
    """Hold the garbage collector while modules are imported.

    Importing makes hundreds of thousands of objects that stay. The collector goes through them again and
    again, which takes a sixth of the time of `import torch`. Afterwards it would go through all of them at
    once: in a program that has frozen what it began with (`gc.freeze`), as ours does, they are frozen too.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            if gc.get_freeze_count():
                gc.freeze()
            gc.enable()


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


@contextmanager
def imported_later(name: str) -> Iterator[None]:
    """Let what is imported inside find a stand-in for a package, which imports it once it is used.

    Nothing is done where the package is imported already, or not installed.
    """
    if name in sys.modules or find_spec(name) is None:
        yield
        return
    stand_in = _Later(name)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


class _Later(ModuleType):
    """Hands on what is asked of it to the module of its name."""

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # `inspect` asks every module for its file
            raise AttributeError(attribute)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), attribute)


def _disable(function: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    if isinstance(function, type):
        raise ImportError("a class is left uncompiled by the compiler itself alone")
    from torch._compile import _disable_dynamo

    return _disable_dynamo(function, recursive)


def _is_compile_supported(device_type: str) -> Any:
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device_type)
