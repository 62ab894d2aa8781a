"""A trained timm network under timm's own names, with our head in place of its classifier.

In evaluation batch norm before an affine layer is affine itself, so that both are one: what is left of a head
are affine layers with ReLU between them, which any program can build.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from finetune.errors import ConfigError
from finetune.model.classifier import ImageClassifier
from finetune.model.timm_network import TimmBackbone

_POOLS = {"avg+max": "catavgmax", "avg": "avg", "max": "max"}


@dataclass(frozen=True)
class TimmExport:
    """A state dict for a network of timm's, and how to build the network that takes it."""

    state: dict[str, Tensor]
    name: str
    """of the architecture, without a tag"""
    pool: str
    """timm's word for how features are pooled; empty for a network that pools in a way of its own"""
    classifier: str
    """where the network holds its classifier, such as `head.fc`"""
    widths: tuple[int, ...]
    """of the inputs of each affine layer of the classifier, and at last of the logits"""

    def arguments(self) -> str:
        """Return what `timm.create_model` is called with."""
        pool = f', global_pool="{self.pool}"' if self.pool else ""
        return f'"{self.name}", num_classes={self.widths[-1]}{pool}'

    def lines(self, file: str) -> list[str]:
        """Return the lines of Python that load the file."""
        lines = [f"model = timm.create_model({self.arguments()})"]
        if len(self.widths) > 2:
            pairs = zip(self.widths, self.widths[1:], strict=False)
            layers = ", nn.ReLU(), ".join(f"nn.Linear({a}, {b})" for a, b in pairs)
            lines.append(f'model.set_submodule("{self.classifier}", nn.Sequential({layers}))')
        return [*lines, f'model.load_state_dict(load_file("{file}"))']


def timm_export(model: ImageClassifier) -> TimmExport:
    """Put a model of a timm network under timm's names.

    Raises:
        ConfigError: its network is none of timm's, its head takes metadata, or timm has no such classifier.
    """
    backbone = model.backbone
    if not isinstance(backbone, TimmBackbone):
        raise ConfigError(
            f"export --format timm: {model.spec.arch} is a network of torchvision's.\n"
            "Use --format torch, or --format onnx."
        )
    if len(model.head.embeddings) or model.head.numbers:
        raise ConfigError(
            "export --format timm: the model takes metadata beside images, which timm's networks do not.\n"
            "Use --format torch, or --format onnx."
        )
    network: Any = backbone.network
    classifier = network.pretrained_cfg.get("classifier")
    if not isinstance(classifier, str):
        raise ConfigError(f"export --format timm: {model.spec.arch} has no single classifier to replace.")
    affine = _folded(model.head.layers)
    state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    for number, (weight, bias) in enumerate(affine):
        place = f"{classifier}." if len(affine) == 1 else f"{classifier}.{2 * number}."
        state |= {f"{place}weight": weight, f"{place}bias": bias}
    widths = (*(weight.shape[1] for weight, _ in affine), affine[-1][0].shape[0])
    name = model.spec.arch.removeprefix("timm:").partition(".")[0]
    return TimmExport(state, name, _POOLS.get(model.head.pool, ""), classifier, widths)


def load_into_timm(export: TimmExport) -> nn.Module:
    """Build timm's network and load the state dict, as the lines do.

    Raises:
        ConfigError: timm cannot.
    """
    import timm

    kwargs: dict[str, Any] = {"global_pool": export.pool} if export.pool else {}
    try:
        model: nn.Module = timm.create_model(
            export.name,
            num_classes=export.widths[-1],
            **kwargs,
        )
        if len(export.widths) > 2:
            layers: list[nn.Module] = []
            for inputs, outputs in zip(export.widths, export.widths[1:], strict=False):
                layers += [nn.Linear(inputs, outputs), nn.ReLU()]
            model.set_submodule(export.classifier, nn.Sequential(*layers[:-1]))
        model.load_state_dict(export.state)
    except (RuntimeError, AttributeError, TypeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"export --format timm: timm's {export.name} does not take this head: {reason}\n"
            "Use --format torch, or --format onnx."
        ) from None
    return model.eval()


def _folded(layers: Sequence[nn.Module] | nn.Sequential) -> list[tuple[Tensor, Tensor]]:
    """Return weight (O, I) and bias (O,) of each affine layer, with the batch norm before it folded in."""
    found: list[tuple[Tensor, Tensor]] = []
    scale: Tensor | None = None
    shift: Tensor | None = None
    for layer in layers:
        if isinstance(layer, nn.BatchNorm1d):
            assert layer.running_var is not None
            assert layer.running_mean is not None
            deviation = (layer.running_var.double() + layer.eps).sqrt()
            scale = layer.weight.detach().double() / deviation
            shift = layer.bias.detach().double() - layer.running_mean.double() * scale
        elif isinstance(layer, nn.Linear):
            weight = layer.weight.detach().double()
            bias = torch.zeros(len(weight)).double() if layer.bias is None else layer.bias.detach().double()
            if scale is not None and shift is not None:
                weight, bias, scale, shift = weight * scale, bias + weight @ shift, None, None
            found.append((weight.float(), bias.float()))
    return found
