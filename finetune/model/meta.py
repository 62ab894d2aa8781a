"""Find shapes and dependences of a network, on the meta device: without memory or computing."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_QUICK = 30e6  # parameters of a network whose passes at 224 px take less than a second


class WithoutValues(TorchFunctionMode):
    """Build networks whose parameters have shapes alone, while this is entered.

    Unlike `torch.device("meta")` it leaves the numbers alone from which some networks compute their widths.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Allocate nothing where torch is asked for memory without values."""
        where = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **where})


class _Undrawn(TorchFunctionMode):
    """Draw no initial values: for normal ones on the meta device torch would import its compiler."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Leave a tensor that is to be filled with random numbers as it is."""
        if func is Tensor.normal_ or getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def on_meta() -> Iterator[None]:
    """Build networks on the meta device, where nothing is drawn or kept."""
    with torch.device("meta"), _Undrawn():
        yield


def probe_tensors(module: nn.Module, image_size: int, *, gradients: bool = False) -> dict[str, Tensor]:
    """Return tensors to call a module with, for shapes and dependences alone, by their dotted names.

    They are stand-ins on the meta device, or the module's own where computing is quick: for the meta device
    torch imports its compiler, which takes seconds.
    """
    if is_quick(module, image_size):
        return _stand_ins(module, lambda tensor: tensor.detach(), gradients=gradients)
    return meta_tensors(module, gradients=gradients)


def is_quick(module: nn.Module, image_size: int) -> bool:
    """Tell whether passes of a network, forward and backward, take less than the import of the compiler."""
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return parameters * (image_size / 224) ** 2 <= _QUICK


def meta_tensors(module: nn.Module, *, gradients: bool = False) -> dict[str, Tensor]:
    """Return a stand-in on the meta device for every parameter and buffer, by its dotted name."""
    return _stand_ins(module, lambda tensor: tensor.detach().to("meta"), gradients=gradients)


def _stand_ins(
    module: nn.Module, stand_in: Callable[[Tensor], Tensor], *, gradients: bool
) -> dict[str, Tensor]:
    """Return a stand-in for every parameter and buffer, by its dotted name.

    A module that stands in two places has one name here, and a tensor that two modules share one stand-in;
    with `gradients`, those of parameters ask for one.
    """
    stand_ins: dict[int, Tensor] = {}
    found: dict[str, Tensor] = {}
    for path, part in module.named_modules():
        for key, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            if id(tensor) not in stand_ins:
                asks = gradients and isinstance(tensor, nn.Parameter)
                stand_ins[id(tensor)] = stand_in(tensor).requires_grad_(asks)
            found[f"{path}.{key}" if path else key] = stand_ins[id(tensor)]
    return found


def largest_output(module: nn.Module, image_size: int) -> int:
    """Return how many values the largest output of any layer has for one square image."""
    sizes = [0]

    def note(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel())

    hooks = [part.register_forward_hook(note) for part in module.modules()]
    try:
        with torch.no_grad():
            call_with(module, meta_tensors(module), 1, image_size)
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes)


def call_with(module: nn.Module, tensors: dict[str, Tensor], images: int, image_size: int) -> Tensor:
    """Return the output of a module in eval mode for square black images, computed with stand-ins.

    The module is afterwards as it was.
    """
    batch = torch.zeros(images, 3, image_size, image_size, device=next(iter(tensors.values())).device)
    with evaluating(module):
        # torch would tie weights by name: a module in two places would then keep its stand-ins.
        output: Tensor = torch.func.functional_call(module, tensors, (batch,), tie_weights=False)
    return output


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode, and each of its parts afterwards into the mode that it was in."""
    was_training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in was_training.items():
            part.training = training
