"""Divide the weights of a backbone over the ranks of a training, by torch's FSDP2 (`fully_shard`).

Each rank holds some rows of every weight, and with them of its gradient and of its optimizer states. The
blocks of a network are put together one after the other where a pass needs them, and forgotten after it.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor, nn

from finetune.errors import ConfigError
from finetune.machine.divided import has_divided
from finetune.machine.ranks import Ranks, first_line
from finetune.model import ImageClassifier
from finetune.model.timm_units import LooseParameters
from finetune.model.units import depth
from finetune.text import printable


def divide_weights(model: ImageClassifier, ranks: Ranks, device: torch.device) -> None:
    """Leave on each rank its rows of the backbone's weights, on the device, and all of the head.

    The model is on the CPU, and whole; of the device it takes no more than a block and what stays here.

    Raises:
        ConfigError: the network uses the weights of a block without calling it.
    """
    # These import torch's compiler, which takes seconds.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    ranks.share_tensors(list(model.state_dict().values()))
    for parameter in model.backbone.parameters():
        parameter.data = parameter.data.contiguous()  # channels-last rows are no rows of the memory
    mesh = init_device_mesh(device.type, (ranks.size,))
    scalars = {parameter for parameter in model.backbone.parameters() if not parameter.ndim}
    for module in (*_blocks(model), model.backbone):
        # Older torch takes no container, also where it can be called (blocks of DenseNet): what is in one is
        # then put together with the first.
        with suppress(ValueError):
            fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=scalars)
            module.register_forward_hook(_no_view)
    for module in model.backbone.modules():
        if isinstance(module, FSDPModule):
            # Each loss is weighted by what its rows are of the batch.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    _find_loose_parameters(model)
    model.to(device)
    _try_out(model, device)


def _blocks(model: ImageClassifier) -> Iterator[nn.Module]:
    """Return the modules that are put together one by one; what is in none of them is so with the first.

    Those are the units of the layer groups that have a matrix. One that shares a weight with another module
    is left out: torch divides a weight once.
    """
    backbone = model.backbone
    holders = Counter(parameter for module in backbone.modules() for parameter in module._parameters.values())
    parts = set(backbone.modules()) - {backbone}
    for group in model.layer_groups[:-1]:
        for _, module in group.units:
            if module in parts and depth(module) and type(module) not in (nn.ModuleList, nn.ModuleDict):
                own = Counter(p for part in module.modules() for p in part._parameters.values())
                if all(own[parameter] == holders[parameter] for parameter in own if parameter is not None):
                    yield module


def _no_view(_: nn.Module, __: object, output: object) -> Tensor | None:
    """Return a copy of an output that is a view: in place (`x += y`) it would lose the hook of torch."""
    return output.clone() if isinstance(output, Tensor) and output._is_view() else None


def _find_loose_parameters(model: ImageClassifier) -> None:
    """Let the layer groups know the divided parameters in place of those that were whole."""
    for group in model.layer_groups:
        for path, module in group.units:
            if isinstance(module, LooseParameters):
                holder = model.get_submodule(path)
                for name, _ in list(module.named_parameters()):
                    module.register_parameter(name, getattr(holder, name))


def _try_out(model: ImageClassifier, device: torch.device) -> None:
    """Call the network once, before there is anything to lose.

    Raises:
        ConfigError: it uses the weights of a block without calling it.
    """
    assert has_divided(model)
    size, training = model.preprocessing.image_size, model.training
    model.eval()
    try:
        with torch.no_grad():
            model.features(torch.zeros(1, 3, size, size, device=device))
    except RuntimeError as error:
        if "DTensor" not in str(error):
            raise
        raise ConfigError(
            f"shard: the weights of {model.spec.arch} cannot be divided: {printable(first_line(error))}\n"
            "Set shard: none, or choose another network."
        ) from None
    model.train(training)
