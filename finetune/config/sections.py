"""The sections of a config: every key with its type, its default, and what it is for.

The docstring below a field is its documentation: `finetune.config.reference` puts it into the JSON schema and
into docs/config.md.
"""

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from finetune.choices import BatchNorm, Features, LossSetting, Pool, Spacing
from finetune.config.columns import EmbeddingWidths
from finetune.config.installed_names import MonitorChoice
from finetune.config.values import (
    Dropout,
    Dropped,
    ImageSize,
    Interval,
    Momentum,
    Rate,
    StageName,
    Text,
    TrainedGroups,
    Views,
    seconds_of,
)


class Section(BaseModel):
    """What all sections share: frozen, no unknown keys, no value converted from another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class HeadConfig(Section):
    """The new layers that replace the pretrained network's classifier."""

    hidden: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(strict=False, max_length=8)
    ] = (512,)
    """Width of each hidden layer. `[]` leaves a single linear layer: a linear probe."""

    dropout: Dropout = Field(
        default_factory=lambda validated: (0.25,) * len(validated.get("hidden", ())) + (0.5,),
        json_schema_extra={"default": [0.25, 0.5]},
        validate_default=False,
    )
    """Fraction of inputs (0–1) dropped before each linear layer of the head, so one more than there are
    hidden layers; one number stands for all of them. The default is 0.25 before hidden layers and 0.5
    before the last, as in fastai."""

    pool: Pool = "avg+max"
    """How the last feature map becomes one vector: mean and maximum side by side, or one of them."""

    embedding_width: EmbeddingWidths = None
    """Width of the vectors that stand for the categories of a metadata column, for all columns or by column:
    `{site: 4}`. `null` is fastai's rule, min(600, round(1.6 · n^0.56)) for n categories, the one for missing
    ones among them."""

    metadata_dropout: Dropped = 0.1
    """Fraction of metadata cells (0–1) that training treats as missing, each by itself, so that the model
    learns to do without. With 0 it does not know what to make of a number that is missing for the first time
    after training."""

    @field_validator("dropout")
    @classmethod
    def _one_dropout_per_layer(
        cls, dropout: float | tuple[float, ...], info: ValidationInfo
    ) -> float | tuple[float, ...]:
        hidden = info.data.get("hidden")
        if isinstance(dropout, tuple) and hidden is not None and len(dropout) != len(hidden) + 1:
            raise ValueError(
                f"has {len(dropout)} numbers for {len(hidden)} hidden layers; expected {len(hidden) + 1}, "
                "one before each linear layer, or a single number for all"
            )
        return dropout

    @property
    def dropouts(self) -> tuple[float, ...]:
        """The dropout before each linear layer, len(hidden) + 1 of them."""
        return self.dropout if isinstance(self.dropout, tuple) else (self.dropout,) * (len(self.hidden) + 1)


class ModelConfig(Section):
    """The network: a pretrained backbone and a new head."""

    arch: Text = "resnet34"
    """Any classification model of torchvision, by its name there, or of timm, as `timm:NAME` or
    `timm:NAME.TAG`; `finetune models` and `finetune models 'timm:*'` list them."""

    weights: Text = "default"
    """Where training starts: `default` (torchvision's best weights for the architecture; timm's for its tag,
    from an installed package if there is one), the name of a torchvision weights entry, a tag of timm's,
    `hf-hub:OWNER/NAME` for timm's architectures, a `.safetensors` or `.pth` file, the directory of an
    earlier run, `builtin:glyphs`, or `none` for random weights."""

    head: HeadConfig = HeadConfig()
    """The new layers that replace the pretrained network's classifier."""

    layer_groups: Annotated[int, Field(ge=2, le=64)] = 3
    """Number of parts the model is cut into, from the first layers to the head, each with a learning
    rate of its own."""


class SliceConfig(Section):
    """How `slice(…)` spreads a learning rate over the layer groups."""

    divisor: Annotated[float, Field(ge=1, le=1e6)] = 3.0
    """`slice(hi)` gives the head `hi` and every other group `hi / divisor`. fastai 2 uses 10."""

    spacing: Spacing = "geometric"
    """`slice(lo, hi)` goes from `lo` to `hi` by equal ratios (`geometric`) or equal differences
    (`linear`)."""


_LATEST_PEAK = 0.99


class OneCycleConfig(Section):
    """The one-cycle schedule, with the names and defaults of fastai's `fit_one_cycle`."""

    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Fraction of a stage's steps (0–1) in which the rate rises."""

    div: Annotated[float, Field(ge=1, le=1e6)] = 25.0
    """A stage starts at its peak rate divided by this."""

    div_final: Annotated[float, Field(ge=1, le=1e20)] = 1e5
    """A stage ends at its peak rate divided by this."""

    moms: Annotated[tuple[Momentum, Momentum, Momentum], Field(strict=False)] = (0.95, 0.85, 0.95)
    """Momentum (Adam's first beta) at the start, at the peak of the rate, and at the end."""

    @field_validator("pct_start")
    @classmethod
    def _the_rate_falls_again(cls, pct_start: float) -> float:
        if pct_start > _LATEST_PEAK:
            raise ValueError(f"expected at most {_LATEST_PEAK:g}; the rate would never fall")
        return pct_start


class LossConfig(Section):
    """The loss that training lowers. `val_loss` is plain cross-entropy, whatever it is."""

    name: LossSetting = "auto"
    """`cross_entropy` is for images of one class, `binary_cross_entropy` for images that may have several;
    `auto` takes the one that the data need. `focal` multiplies either by (1 − p)^gamma, where p is the
    probability of what is right: what is right already counts little (Lin et al., 2017)."""

    gamma: Annotated[float, Field(ge=0, le=10)] | None = None
    """Of `focal`: how much less the easy images count. `null` is 2; 0 is cross-entropy."""

    label_smoothing: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of the target (0–0.5) spread evenly over all classes; where an image may have several, over
    having a class and not having it."""

    @field_validator("gamma")
    @classmethod
    def _gamma_is_of_focal(cls, gamma: float | None, info: ValidationInfo) -> float | None:
        name = info.data.get("name")
        if gamma is not None and name not in ("focal", None):
            raise ValueError(f"{name} has no gamma; write name: focal, or leave gamma out")
        return gamma

    @property
    def focus(self) -> float:
        """The exponent of (1 − p); 0 for every loss but `focal`."""
        if self.name != "focal":
            return 0.0
        return 2.0 if self.gamma is None else self.gamma


class StageConfig(Section):
    """One stage of training: what learns, for how long, how fast."""

    name: StageName
    """What the stage is called in tables and file names: a-z, 0-9, `_` and `-`, different from all
    others."""

    train: TrainedGroups
    """Which layer groups learn: `head`, `all`, or a number of groups counted from the head. The others
    are frozen."""

    epochs: Annotated[int, Field(ge=1, le=100_000)]
    """Passes over the training images."""

    lr: Rate
    """Peak learning rate: `1e-3` for all groups, `slice(1e-3)` for less in all groups but the head, or
    `slice(1e-5, 1e-3)` from the first group to the head. `auto`, `slice(auto)` and
    `slice(auto/100, auto)` are the same with a rate that is found when the stage begins. For the
    optimizer `adadelta`, which finds its own rate, it is a factor on that, and 1 is the usual one."""

    image_size: ImageSize | None = None
    """Side of the square images that this stage trains on, in pixels, such as a smaller one for early stages
    (progressive resizing). `null` takes `data.image_size`. Validation, the choice of the best epoch and the
    saved model keep `data.image_size`, so that the scores of all stages can be compared; a model that was
    trained on another size may score lower there than at that one. The network has to take any size, as
    convolutional ones do."""

    batch_norm: BatchNorm = "auto"
    """Running statistics of batch normalisation in the backbone. `still` keeps those of the pretrained
    weights, also in groups that train; `train` lets them move, and lets the normalisation of frozen groups
    learn as well, as fastai does, at the price of back-propagating through the whole network. `auto` is
    `still` for pretrained weights; from random ones, statistics move in the groups that train. Measured in
    docs/recipe.md."""

    features: Features = "auto"
    """Where only the head learns: `cached` computes what the frozen backbone makes of a view of an image
    once, and trains the head on that; `live` computes it for every epoch. The result is the same to the last
    bit. `auto` is `cached` as long as the features fit into 2 GiB of memory. Later runs find those of
    evaluation views in the user's cache folder, see docs/features.md."""

    views: Views = None
    """How many augmented views of each image a stage of the head alone shows. Where they are fewer than its
    epochs they come again in turn, at next to no cost. `eval` shows the one view of evaluation. `null` is a
    new view in each epoch."""

    @field_validator("features", "views")
    @classmethod
    def _features_are_of_the_head_alone(
        cls, value: int | str | None, info: ValidationInfo
    ) -> int | str | None:
        if value in (None, "auto", "live"):
            return value
        if not _only_head_learns(info.data.get("train", "head"), info.data.get("batch_norm", "auto")):
            raise ValueError("only where the head learns alone features are cached; leave it out")
        if info.data.get("features") == "live":
            raise ValueError("features: live shows a new view in each epoch; leave one of the two out")
        return value

    @property
    def only_head_learns(self) -> bool:
        """Whether nothing below the head changes, so that its inputs are a function of the images."""
        return _only_head_learns(self.train, self.batch_norm)


def _only_head_learns(train: object, batch_norm: BatchNorm) -> bool:
    return train in ("head", 1) and batch_norm != "train"


class EarlyStoppingConfig(Section):
    """When a stage ends before its last epoch; training then continues with the next stage.

    It never gets to the low rates that end the stage's cycle; docs/early-stopping.md says what that costs.
    """

    patience: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """A stage ends when this many epochs in a row brought no gain. `null` never ends one early. Counted in
    each stage anew, from the peak of its rate on (`one_cycle.pct_start`)."""

    metric: MonitorChoice | None = None
    """What has to gain: `val_accuracy` by rising, `val_loss` by falling. `null` takes that of `monitor`."""

    min_delta: Annotated[float, Field(ge=0, le=100)] = 0.0
    """A gain is more than this, in the units of the metric: a share of the images (0–1) for `val_accuracy`,
    nats for `val_loss`."""


class CheckpointConfig(Section):
    """What training resumes from after it was stopped or killed."""

    every: Interval = "10min"
    """How often a checkpoint is written within an epoch: after a time (`30s`, `10min`, `1h`) or a number of
    steps. `null` writes none there. There is always one after each stage, and one when a signal stops the
    training. After each epoch there is one where `every` is a number of steps; otherwise it is left out if
    the one before took more than 2% of the time since. The result does not depend on it."""

    keep: Annotated[int, Field(ge=1, le=1000)] = 2
    """How many checkpoints are kept, the newest. With two there is one to fall back on."""

    @property
    def seconds(self) -> float:
        """The interval as a time, in seconds; infinite if it is none."""
        return seconds_of(self.every) if isinstance(self.every, str) else math.inf

    @property
    def steps(self) -> float:
        """The interval as a number of steps; infinite if it is none."""
        return self.every if isinstance(self.every, int) else math.inf


class OutputConfig(Section):
    """Where results go."""

    dir: Text = "runs"
    """Folder in which each run gets a directory of its own. Relative to the current directory."""
