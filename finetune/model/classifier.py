"""The model that is trained, evaluated and used: a pretrained backbone under a new head."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from finetune.choices import BatchNorm, Precision
from finetune.errors import CheckpointError, ConfigError
from finetune.model.backbone import backbone_units, build_backbone, check_size, undecayed_names
from finetune.model.catalogue import find_architecture
from finetune.model.convolutions import QuickConvolutions, gains_by_quick_convolutions
from finetune.model.download import Say
from finetune.model.head import Head
from finetune.model.layer_groups import LayerGroup, build_groups, learning_parameters, statistics_stand_still
from finetune.model.normalise import normalise_bytes
from finetune.model.origin import Origin
from finetune.model.preprocessing import Preprocessing
from finetune.model.spec import ModelSpec
from finetune.model.surgery import small_feature_shape
from finetune.model.units import has_statistics, is_norm
from finetune.model.weights import Weights, load_weights
from finetune.seed import derive


class ImageClassifier(nn.Module):
    """Classify images; normalisation, precision and memory format are inside."""

    def __init__(self, backbone: nn.Module, head: Head, spec: ModelSpec, *, pretrained: bool = False) -> None:
        """Join a backbone and a head; `spec` says how images enter them."""
        super().__init__()
        if spec.preprocessing is None:
            raise ValueError("the spec of an ImageClassifier must have its preprocessing")
        self.spec = spec
        self.preprocessing: Preprocessing = spec.preprocessing
        self.backbone = backbone
        self.head = head
        self.layer_groups: list[LayerGroup] = build_groups(
            backbone_units(backbone), head, spec.layer_groups, undecayed=undecayed_names(backbone)
        )
        self.pretrained = pretrained
        """Whether the backbone began with weights that were trained elsewhere."""
        self.origin: Origin | None = None
        """Which weights the backbone began with; None for a model that was rebuilt from its own."""
        self._frozen: list[LayerGroup] = []
        self._frozen_norms_learn = False
        self._statistics_still = False
        self._gains = [gains_by_quick_convolutions(backbone, in_bfloat16=choice) for choice in (False, True)]
        self.mean: Tensor
        self.std: Tensor
        # Not saved: they belong to the preprocessing, which model.json holds.
        self.register_buffer("mean", _per_channel(self.preprocessing.mean), persistent=False)
        self.register_buffer("std", _per_channel(self.preprocessing.std), persistent=False)
        if spec.memory_format == "channels_last":
            self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, *metadata: Tensor) -> Tensor:
        """Turn images (N, 3, H, W), uint8 or float in 0–255, into float32 logits (N, C).

        Their `features` (N, D) may take their place. `metadata` is what the head takes beside features, see
        `Head.forward`; nothing without metadata.
        """
        features = self._backbone_features(images)
        # The head is small, and rounding its logits to bfloat16 would round the loss as well.
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.head(features, *metadata)
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Turn images (N, 3, H, W) into what the head sees of them: pooled float32 features (N, D).

        Features stay as they are. `head(features(images), *metadata)` is `forward(images, *metadata)`. Under
        a frozen backbone they can be reused.
        """
        return self.head.pooled(self._backbone_features(images).float())

    def normalised(self, images: Tensor) -> Tensor:
        """Turn images (N, 3, H, W), uint8 or float in 0–255, into what the backbone was trained on."""
        channels_last = self.spec.memory_format == "channels_last"
        exported = torch.compiler.is_compiling()  # with the formula itself
        if images.dtype == torch.uint8 and images.device.type == "cpu" and not exported:
            return normalise_bytes(images, self.mean, self.std, channels_last=channels_last)
        normalised = (images.to(torch.float32) / 255 - self.mean) / self.std
        if channels_last:
            normalised = normalised.contiguous(memory_format=torch.channels_last)
        return normalised

    def _backbone_features(self, images: Tensor) -> Tensor:
        if images.ndim == 2:  # they are features already
            return images
        normalised = self.normalised(images)
        in_bfloat16 = self.spec.precision == "bfloat16"
        trains_on_cpu = images.device.type == "cpu" and self.training and not self.only_head_learns
        with (
            torch.autocast(images.device.type, torch.bfloat16, enabled=in_bfloat16),
            QuickConvolutions() if trains_on_cpu and self._gains[in_bfloat16] else nullcontext(),
        ):
            features: Tensor = self.backbone(normalised)
        return features

    def set_precision(self, precision: Precision) -> None:
        """Choose what the backbone computes in, from now on."""
        self.spec = replace(self.spec, precision=precision)

    def freeze(self, trainable_groups: int, *, batch_norm: BatchNorm = "auto") -> None:
        """Let the last `trainable_groups` layer groups learn, and hold the others still.

        A frozen group has no gradients and stays in eval mode, also in training, so that no statistic moves,
        nothing is dropped out, and its activations are not kept. Gradients left from before are deleted:
        weight decay or momentum would go on moving frozen weights.

        Args:
            trainable_groups: 1 for the head alone, up to the number of groups for everything.
            batch_norm: `still` keeps the running statistics of the whole backbone. `train` moves them, and
                lets the norm layers of frozen groups learn as well, as in fastai: all is back-propagated
                through then, down to the first layer. `auto` keeps them if the backbone is pretrained;
                otherwise they move in the groups that learn.

        Raises:
            ConfigError: the model has fewer groups, or `trainable_groups` is below 1.
        """
        n = len(self.layer_groups)
        if not 1 <= trainable_groups <= n:
            raise ConfigError(f"train: {trainable_groups} layer groups cannot be trained; there are {n}.")
        self._frozen = self.layer_groups[: n - trainable_groups]
        self._frozen_norms_learn = batch_norm == "train"
        self._statistics_still = statistics_stand_still(batch_norm, pretrained=self.pretrained)
        self.requires_grad_(True)
        for group in self._frozen:
            learning = {id(p) for p in learning_parameters(group, trainable=False, batch_norm=batch_norm)}
            for parameter in group.parameters():
                if id(parameter) not in learning:
                    parameter.requires_grad_(False)
                    parameter.grad = None
        self.train(self.training)

    @property
    def only_head_learns(self) -> bool:
        """Whether the whole backbone is frozen, so that its features are a pure function of the images."""
        return len(self._frozen) == len(self.layer_groups) - 1 and not self._frozen_norms_learn

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode, except for what is frozen and for statistics that stand still."""
        super().train(mode)
        if self._statistics_still:
            for module in filter(has_statistics, self.backbone.modules()):
                module.training = False
        for group in self._frozen:
            for module in group.modules():
                module.training = mode and self._frozen_norms_learn and is_norm(module)
        return self


def build_classifier(
    spec: ModelSpec, *, weights: str | Weights = "default", seed: int, say: Say | None = None
) -> ImageClassifier:
    """Build a model with a pretrained backbone and a random head, on the CPU.

    Args:
        spec: what to build; the model's own `spec` has everything filled in that comes with the weights.
        weights: what `model.weights` says, see `load_weights`; or loaded weights, such as those of a run.
        seed: the seed of the experiment. The head drawn from it does not depend on the weights.
        say: called with a line before a download, and about anything doubtful.

    Raises:
        ConfigError: architecture, weights, image size, head or number of groups are not possible.
        WeightsError: the weights are missing, damaged, or another architecture's.
    """
    arch = find_architecture(spec.arch)
    if spec.image_size is not None:
        check_size(arch, spec.image_size)  # before anything is downloaded
    found = load_weights(weights, arch, say) if isinstance(weights, str) else weights
    spec = spec.resolved(found.preprocessing, transform_input=found.transform_input)
    model = _assemble(spec, seed, found, say)
    model.origin = found.source
    return model


def rebuild_classifier(fields: Mapping[str, Any], state: Mapping[str, Tensor]) -> ImageClassifier:
    """Rebuild a model from what `ModelSpec.to_dict` and `state_dict` gave, without looking for weights.

    Raises:
        CheckpointError: the two do not belong together, or are damaged.
    """
    try:
        model = _assemble(ModelSpec.from_dict(fields), seed=0, weights=None)
    except ConfigError as error:
        raise CheckpointError(f"The model cannot be rebuilt: {error}") from None
    ours = model.state_dict()
    wrong = set(ours) ^ set(state) or {name for name in ours if ours[name].shape != state[name].shape}
    if wrong:
        raise CheckpointError(
            f"The weights do not belong to this model: {len(wrong)} tensors differ, first {min(wrong)}."
        )
    model.load_state_dict(dict(state))
    return model


def _assemble(spec: ModelSpec, seed: int, weights: Weights | None, say: Say | None = None) -> ImageClassifier:
    """Draw the network and the head, each from a generator of its own, and copy the weights in."""
    arch = find_architecture(spec.arch)
    assert spec.image_size is not None  # ModelSpec.resolved and from_dict see to it
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "init", "backbone"))
        backbone = build_backbone(
            arch, spec.image_size, weights, transform_input=spec.transform_input, say=say
        )
        channels, *area = small_feature_shape(arch, backbone, spec.image_size)
        torch.default_generator.manual_seed(derive(seed, "init", "head"))
        head = Head(
            channels,
            spec.classes,
            hidden=spec.head.hidden,
            dropout=spec.head.dropout,
            pool=spec.head.pool if area else "none",  # a class token needs no pooling
            metadata=spec.head.metadata,
        )
    pretrained = weights is not None and weights.tensors is not None
    return ImageClassifier(backbone, head, spec, pretrained=pretrained)


def _per_channel(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)
