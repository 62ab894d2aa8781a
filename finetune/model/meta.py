"""Call a network on the meta device: shapes and dependences without memory or computing."""

import torch
from torch import Tensor, nn


def meta_tensors(module: nn.Module, *, gradients: bool = False) -> dict[str, Tensor]:
    """Return a stand-in on the meta device for every parameter and buffer, by its dotted name.

    A module that stands in two places has one name here, and a tensor that two modules share one stand-in;
    with `gradients`, those of parameters ask for one.
    """
    stand_ins: dict[int, Tensor] = {}
    found: dict[str, Tensor] = {}
    for path, part in module.named_modules():
        for key, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            if id(tensor) not in stand_ins:
                asks = gradients and isinstance(tensor, nn.Parameter)
                stand_ins[id(tensor)] = tensor.detach().to("meta").requires_grad_(asks)
            found[f"{path}.{key}" if path else key] = stand_ins[id(tensor)]
    return found


def call_on_meta(module: nn.Module, tensors: dict[str, Tensor], images: int, image_size: int) -> Tensor:
    """Return the output of a module in eval mode for square images, computed with stand-ins.

    The module is afterwards as it was.
    """
    was_training = {part: part.training for part in module.modules()}
    batch = torch.empty(images, 3, image_size, image_size, device="meta")
    module.eval()
    try:
        # torch would tie weights by name: a module in two places would then keep its stand-ins.
        output: Tensor = torch.func.functional_call(module, tensors, (batch,), tie_weights=False)
    finally:
        for part, training in was_training.items():
            part.training = training
    return output
