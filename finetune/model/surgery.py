"""Cut torchvision's networks before their classifier, into a sequence of modules in depth order.

torchvision's 80 classification models are 17 classes. Each is cut by a function of a few lines that names its
children in the order in which its `forward` calls them. Whatever that `forward` does without a module (the
last ReLU of DenseNet, the class token of ViT) becomes a small module here, because re-sequencing children
would lose it silently. Names stay torchvision's, so that its weights load by name.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torchvision.models as tv
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from finetune.errors import ConfigError
from finetune.model.architecture import Architecture
from finetune.model.meta import call_with, evaluating, probe_tensors

# Smallest side in pixels of which the network's strides and pooling leave anything; 1 where none is named.
SMALLEST = {
    "alexnet": 63,
    "convnext": 32,
    "densenet": 29,
    "googlenet": 15,
    "inception": 75,
    "squeezenet": 21,
    "squeezenet1_1": 17,
    "swin_transformer": 4,
    "vgg": 32,
}

_SMALL = 32  # pixels

# Stages halve the resolution five times and partition what is left into windows of 7 × 7.
_MAXVIT_STEP = 224

_BUILT_FOR_ONE_SIZE = ("vision_transformer", "maxvit")

# A file of a kilobyte can declare any number of positions; this is an image of 4096 pixels in patches of 16.
_MOST_POSITIONS = 256 * 256 + 1


POSITIONS = ("pos_embedding", "pos_embed")
"""How the names of position embeddings end, which are interpolated to another number of positions."""


class TransformInput(nn.Module):
    """Turn images normalised for ImageNet into the range −1…1 that GoogLeNet and Inception expect."""

    def __init__(self) -> None:
        super().__init__()
        scale = torch.tensor([std / 0.5 for std in (0.229, 0.224, 0.225)])
        shift = torch.tensor([(mean - 0.5) / 0.5 for mean in (0.485, 0.456, 0.406)])
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", scale.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Rescale normalised images (N, 3, H, W)."""
        return images * self.scale + self.shift


class Tokens(nn.Module):
    """Turn the patches of a vision transformer into its tokens: class token first, positions added."""

    def __init__(self, class_token: nn.Parameter, pos_embedding: nn.Parameter, dropout: nn.Module) -> None:
        super().__init__()
        self.class_token = class_token
        self.pos_embedding = pos_embedding
        self.dropout = dropout

    def forward(self, patches: Tensor) -> Tensor:
        """Turn patches (N, D, h, w) into tokens (N, 1 + h·w, D)."""
        tokens = patches.flatten(2).permute(0, 2, 1)
        class_token = self.class_token.expand(tokens.shape[0], -1, -1)
        embedded: Tensor = self.dropout(torch.cat([class_token, tokens], dim=1) + self.pos_embedding)
        return embedded


class ClassToken(nn.Module):
    """Keep the class token, which is what a vision transformer classifies."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Take (N, D) out of tokens (N, 1 + h·w, D)."""
        return tokens[:, 0]


def check_image_size(arch: Architecture, image_size: int, *, key: str = "data.image_size") -> None:
    """Refuse a side in pixels, the value of `key`, that the architecture cannot work with.

    Raises:
        ConfigError: says which sizes are possible.
    """
    smallest = SMALLEST.get(arch.name, SMALLEST.get(arch.family, 1))
    if image_size < smallest:
        raise ConfigError(f"{key}: {arch.name} needs images of at least {smallest} pixels, not {image_size}.")
    step = _size_step(arch)
    if image_size % step:
        below = image_size // step * step
        sizes = " or ".join(str(size) for size in (below, below + step) if size)
        raise ConfigError(
            f"{key}: {arch.name} needs a multiple of {step} pixels, not {image_size}; give {sizes}."
        )


def check_other_size(arch: Architecture, built_for: int, image_size: int, *, key: str) -> None:
    """Refuse a side in pixels, the value of `key`, that a network built for another size cannot take.

    Raises:
        ConfigError: says why, and which sizes are possible.
    """
    if arch.family in _BUILT_FOR_ONE_SIZE and image_size != built_for:
        raise ConfigError(
            f"{key}: {arch.name} takes images of one size only, here {built_for} pixels, not {image_size}.\n"
            "Leave the key out, or take a convolutional network, which has no position embeddings or windows "
            "of a fixed size."
        )
    check_image_size(arch, image_size, key=key)


def build_network(arch: Architecture, image_size: int, *, transform_input: bool = False) -> nn.Module:
    """Build torchvision's own network with random weights.

    Args:
        arch: which one.
        image_size: side of the square images in pixels; transformers are built for one size.
        transform_input: whether GoogLeNet and Inception rescale their input, as pretrained ones do.

    Raises:
        ConfigError: the architecture cannot work with images of this size.
    """
    check_image_size(arch, image_size)
    options: dict[str, Any] = {}
    if arch.family in ("googlenet", "inception"):
        # Their own initialisation warns and draws for seconds; the auxiliary heads are cut off again below.
        options = {"init_weights": False, "aux_logits": True, "transform_input": transform_input}
    elif arch.family == "vision_transformer":
        options = {"image_size": image_size}
    elif arch.family == "maxvit":
        options = {"input_size": (image_size, image_size)}
    network: nn.Module = tv.get_model(arch.name, weights=None, **options)
    return network


def cut(network: nn.Module) -> nn.Sequential:
    """Take the backbone out of a torchvision network, sharing its parameters.

    The backbone maps normalised images (N, 3, H, W) to the last feature map (N, C, h, w) before torchvision
    pools it, or to the class token (N, D) of a vision transformer.
    """
    return _CUTS[type(network)](network)


def torchvision_names(network: nn.Module, backbone: nn.Module) -> dict[str, str]:
    """Tell for every entry of the backbone's state dict what torchvision calls it.

    Both share their tensors, so that no table of renamed keys has to be kept.
    """
    theirs = {id(tensor): name for name, tensor in _tensors(network)}
    return {name: theirs[id(tensor)] for name, tensor in _tensors(backbone) if id(tensor) in theirs}


def fit_positions(tensors: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Interpolate the position embeddings of a vision transformer's weights to the network's image size."""
    positions = tensors.get("encoder.pos_embedding")
    if not isinstance(network, tv.VisionTransformer) or positions is None:
        return tensors
    # What cannot be interpolated is left as it is; the check of shapes will name it.
    if positions.ndim != 3 or positions.shape[1] > _MOST_POSITIONS or not _is_grid(positions.shape[1] - 1):
        return tensors
    return dict(interpolate_embeddings(network.image_size, network.patch_size, OrderedDict(tensors)))


def feature_shape(backbone: nn.Module, image_size: int) -> tuple[int, ...]:
    """Return the shape of one image's features, (C, h, w) or (D,), without computing them."""
    with torch.no_grad():
        features = call_with(backbone, probe_tensors(backbone, image_size), 1, image_size)
    return tuple(features.shape[1:])


def small_feature_shape(arch: Architecture, backbone: nn.Module, image_size: int) -> tuple[int, ...]:
    """Return the shape of the features of a small image: as many channels as for any other, in fewer places.

    Computing them takes milliseconds. To find shapes without computing, torch imports its compiler, which
    takes a second; that is left to networks which take images of one size alone.
    """
    if arch.of_timm or arch.family in _BUILT_FOR_ONE_SIZE:
        return feature_shape(backbone, image_size)
    side = min(image_size, max(_SMALL, SMALLEST.get(arch.name, SMALLEST.get(arch.family, 1))))
    with torch.no_grad(), evaluating(backbone):
        return tuple(backbone(torch.zeros(1, 3, side, side)).shape[1:])


def _size_step(arch: Architecture) -> int:
    if arch.family == "vision_transformer":
        return int(arch.name.rpartition("_")[2])  # the side of a patch, which its name ends in
    return _MAXVIT_STEP if arch.family == "maxvit" else 1


def _is_grid(positions: int) -> bool:
    return positions > 0 and math.isqrt(positions) ** 2 == positions


def _tensors(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _children(network: nn.Module, *names: str) -> "OrderedDict[str, nn.Module]":
    return OrderedDict((name, network.get_submodule(name)) for name in names)


def _only(*names: str) -> Callable[[nn.Module], nn.Sequential]:
    """Make the cut of a network whose `forward` just calls these children, one after the other."""
    return lambda network: nn.Sequential(_children(network, *names))


def _cut_densenet(network: nn.Module) -> nn.Sequential:
    # torchvision applies this ReLU as a function; without it half of the features have the wrong sign.
    return nn.Sequential(_children(network, "features") | {"relu": nn.ReLU(inplace=True)})


def _cut_inception(network: nn.Module) -> nn.Sequential:
    tail = ("avgpool", "dropout", "fc")
    auxiliary = ("aux1", "aux2", "AuxLogits")
    names = [name for name, _ in network.named_children() if name not in tail + auxiliary]
    first = OrderedDict(transform_input=TransformInput()) if network.transform_input else OrderedDict()
    return nn.Sequential(first | _children(network, *names))


def _cut_regnet(network: nn.Module) -> nn.Sequential:
    trunk: OrderedDict[str, nn.Module] = OrderedDict()
    for name, stage in network.get_submodule("trunk_output").named_children():
        trunk[name] = nn.Sequential(OrderedDict(stage.named_children()))
    return nn.Sequential(_children(network, "stem") | {"trunk_output": nn.Sequential(trunk)})


def _cut_vit(network: nn.Module) -> nn.Sequential:
    encoder = network.get_submodule("encoder")
    tokens = Tokens(
        network.get_parameter("class_token"),
        encoder.get_parameter("pos_embedding"),
        encoder.get_submodule("dropout"),
    )
    parts = OrderedDict(tokens=tokens) | _children(encoder, "layers", "ln") | {"output": ClassToken()}
    return nn.Sequential(_children(network, "conv_proj") | {"encoder": nn.Sequential(parts)})


def _cut_maxvit(network: nn.Module) -> nn.Sequential:
    blocks = [
        nn.Sequential(OrderedDict(layers=nn.Sequential(*block.get_submodule("layers").children())))
        for block in network.get_submodule("blocks").children()
    ]
    return nn.Sequential(_children(network, "stem") | {"blocks": nn.Sequential(*blocks)})


_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")

_CUTS: dict[type[nn.Module], Callable[[nn.Module], nn.Sequential]] = {
    tv.ResNet: _only(*_RESNET),
    tv.AlexNet: _only("features"),
    tv.VGG: _only("features"),
    tv.SqueezeNet: _only("features"),
    tv.DenseNet: _cut_densenet,
    tv.GoogLeNet: _cut_inception,
    tv.Inception3: _cut_inception,
    tv.MobileNetV2: _only("features"),
    tv.MobileNetV3: _only("features"),
    tv.EfficientNet: _only("features"),
    tv.MNASNet: _only("layers"),
    tv.ShuffleNetV2: _only("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"),
    tv.RegNet: _cut_regnet,
    tv.ConvNeXt: _only("features"),
    tv.VisionTransformer: _cut_vit,
    tv.SwinTransformer: _only("features", "norm", "permute"),
    tv.MaxVit: _cut_maxvit,
}
