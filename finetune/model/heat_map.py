"""Heat maps: where in an image a network finds what speaks for a class (Grad-CAM, Selvaraju et al., 2017).

A feature map is weighted by how much each of its channels raises the class's logit on average, and what is
above zero is kept. That is a line of arithmetic; the work is to find the layer for any network, which
libraries of heat maps leave to their user, and which the units of a backbone tell here.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from finetune.model.backbone import PREFIX, backbone_units
from finetune.model.classifier import ImageClassifier
from finetune.model.units import is_norm

# Fewer cells along a side than this say little about where; images smaller than those of ImageNet leave one
# or two at the end of most networks.
_CELLS = 4

_LEAST_CELLS = 2

# Of no patch are the class token, that of distillation, and registers.
_MOST_TOKENS_BEFORE = 8


class HeatMaps(NamedTuple):
    """Where images hold what speaks for a class."""

    heat: Tensor
    """(N, h, w), on the CPU: 0 nothing, 1 the most of this image; all 0 where nothing speaks for the class"""
    layer: str
    """whose output was looked at"""


class _Output(NamedTuple):
    """What a layer gave, and may be a map."""

    layer: str
    output: Tensor
    maps: Tensor
    """the same as (N, C, h, w)"""


def heat_maps(model: ImageClassifier, images: Tensor, classes: Tensor, *metadata: Tensor) -> HeatMaps | None:
    """Find where images hold what speaks for a class; one pass forward, and one or few back.

    The last layer is taken that still knows where: its output is a map of at least 4 × 4 cells, or of tokens
    that are patches of the image, and the logit depends on them. (Of a vision transformer that gives the
    class token, the norm before its last attention.) Where no map is that large, 2 × 2 cells have to do.

    Args:
        model: in eval mode; it stays as it is.
        images: (N, 3, H, W), square, as `forward` takes them.
        classes: (N,), of each image the one to explain.
        metadata: what the head takes beside features.

    Returns:
        None for a network in which no such layer is found.
    """
    # Callers may predict in inference mode, whose tensors know no gradient.
    with torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
        # Some layers of CUDA have no deterministic pass back; a picture may differ in its last bit.
        warnings.filterwarnings("ignore", message=".*deterministic")
        pixels = images.detach().to(torch.float32, copy=True).requires_grad_()
        with _watched(model.backbone) as outputs:
            logits = model(pixels, *(tensor.clone() for tensor in metadata))
        logit = logits.gather(1, classes.clone().to(logits.device).view(-1, 1)).sum()
        for cells in (_CELLS, _LEAST_CELLS):
            candidates = [one for one in reversed(outputs) if one.maps.shape[-1] >= cells]
            if candidates:
                return _last_that_matters(logit, candidates)
    return None


def _last_that_matters(logit: Tensor, candidates: list[_Output]) -> HeatMaps:
    """Return the heat of the first candidate that the logit depends on; of the very first if it is none."""
    for one in candidates:
        (gradient,) = torch.autograd.grad(logit, one.output, retain_graph=True, allow_unused=True)
        if gradient is None:
            continue
        slopes = _as_maps(gradient)
        assert slopes is not None
        if bool(slopes.any()):
            return HeatMaps(_heat(one.maps.detach(), slopes), one.layer)
    blank = candidates[0]
    return HeatMaps(torch.zeros(len(blank.maps), *blank.maps.shape[2:]), blank.layer)


def _heat(maps: Tensor, slopes: Tensor) -> Tensor:
    """Weigh maps (N, C, h, w) by the mean slope of each channel; divide by the most of each image."""
    weights = slopes.float().mean((2, 3), keepdim=True)
    heat = (weights * maps.float()).sum(1).relu().cpu()
    most = heat.amax((1, 2), keepdim=True)
    return torch.where(most > 0, heat / most.clamp_min(torch.finfo(heat.dtype).tiny), 0.0)


@contextmanager
def _watched(backbone: nn.Module) -> Iterator[list[_Output]]:
    """Note every map that the units of a backbone give, in the order in which they are called."""
    outputs: list[_Output] = []

    def watch(layer: str, module: nn.Module, *, tokens_only: bool = False) -> None:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.requires_grad and (output.ndim == 3 or not tokens_only):
                maps = _as_maps(output)
                if maps is not None:
                    outputs.append(_Output(layer, output, maps))

        hooks.append(module.register_forward_hook(note))

    hooks: list[Any] = []
    for layer, module in [named for unit in backbone_units(backbone) for named in unit]:
        watch(layer, module)
        for name, inner in module.named_modules():
            if name and is_norm(inner):
                watch(f"{layer}.{name}", inner, tokens_only=True)
    watch(PREFIX, backbone)
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _as_maps(output: Tensor) -> Tensor | None:
    """Return the output of a layer as maps (N, C, h, w) of square images; None where it is none.

    It may be that already, or have its channels last, or be tokens with those of no patch before them.
    """
    shape = output.shape
    if output.ndim == 4 and shape[2] == shape[3]:
        return output
    if output.ndim == 4 and shape[1] == shape[2]:
        return output.permute(0, 3, 1, 2)
    if output.ndim != 3:
        return None
    for before in range(min(shape[1], _MOST_TOKENS_BEFORE + 1)):
        side = math.isqrt(shape[1] - before)
        if side**2 == shape[1] - before:
            return output[:, before:].transpose(1, 2).reshape(shape[0], shape[2], side, side)
    return None
