"""The words of a config file: the one vocabulary in which an experiment is described.

Values are strict (`3.0` is no whole number, `"3"` is no number, `true` is neither) and frozen, so that a
`Config` that exists is a `Config` that makes sense. Nothing here imports torch: names of architectures and
weights are checked where they are known.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from finetune.choices import DeviceName, LoggerName, MemoryFormat, PrecisionSetting, Sharding
from finetune.config.data import DataConfig
from finetune.config.installed_names import MonitorSetting
from finetune.config.lr_finder import LrFinderConfig
from finetune.config.optimizer import OptimizerConfig
from finetune.config.problems import describe, in_order
from finetune.config.python_values import read_values
from finetune.config.sections import (
    CheckpointConfig,
    EarlyStoppingConfig,
    LossConfig,
    ModelConfig,
    OneCycleConfig,
    OutputConfig,
    Section,
    SliceConfig,
    StageConfig,
)
from finetune.errors import ConfigError, InvalidConfigError
from finetune.optim.learning_rates import LearningRate
from finetune.text import printable

WITH_MARKS = "marks"
"""The context of a validation whose caller knows where each value was written, and reports that itself."""


def _stage_problems(
    stages: Sequence[StageConfig], model: ModelConfig | None, data: DataConfig | None
) -> list[tuple[tuple[int, str], str]]:
    """Find what is wrong between stages: a list of ((index, key), text)."""
    problems = []
    seen: dict[str, int] = {}
    for index, stage in enumerate(stages):
        first = seen.setdefault(stage.name, index)
        if first != index:
            problems.append(
                ((index, "name"), f"{stage.name!r} is also the name of stages[{first}]; rename one")
            )
        if model is not None and isinstance(stage.train, int) and stage.train > model.layer_groups:
            text = f"{stage.train} is more than model.layer_groups ({model.layer_groups}); write all, or less"
            problems.append(((index, "train"), text))
        if data is not None and data.mixes and (stage.features == "cached" or stage.views is not None):
            key = "features" if stage.views is None else "views"
            text = "mixed images (data.mixup, data.cutmix) are never the same again; leave one of the two out"
            problems.append(((index, key), text))
    return problems


_MOST_DECAY = 0.1  # of all weights at one step; 0.001 is much already
_MUCH_DECAY = 0.1
_MOST_GAIN = 1.0  # of a score between 0 and 1


def _decay_problems(
    stages: Sequence[StageConfig], optimizer: OptimizerConfig
) -> list[tuple[tuple[str, ...], str]]:
    """Find where weight decay would be stronger than all learning."""
    strength, plain = optimizer.weight_decay, optimizer.name in ("sgd", "momentum", "nesterov")
    where = ("optimizer", "weight_decay")
    if optimizer.decay == "l2" and strength > 1:
        return [(where, f"{strength:g} makes the decay all that moves weights; with decay: l2 at most 1")]
    if optimizer.decay == "l2" and not plain:
        return []
    if strength <= _MUCH_DECAY:  # a rate that is too high for anything diverges, and says so
        return []
    for stage in stages:
        share = strength * stage.lr.last
        if not stage.lr.auto and share > _MOST_DECAY:
            text = (
                f"{strength:g} at the rate {stage.lr} of stage {stage.name} would take {share:.0%} of all "
                f"weights at each step; lr × weight_decay is at most {_MOST_DECAY:g}, and usually below 0.001"
            )
            return [(where, text)]
    return []


def default_stages(optimizer: object) -> tuple[StageConfig, ...]:
    """Return the stages of a config that names none: the head alone, then everything.

    `adadelta` finds its own rates and takes factors on them; any other optimizer takes the rates of `adam`.
    """
    head, first, last = (1.0, 1e-2, 1.0) if optimizer == "adadelta" else (3e-3, 1e-5, 1e-3)
    everything = LearningRate(last, first, sliced=True)
    return (
        StageConfig(name="frozen", train="head", epochs=1, lr=LearningRate(head)),
        StageConfig(name="unfrozen", train="all", epochs=4, lr=everything),
    )


class Config(Section):
    """A whole experiment. Only `data.path` is required."""

    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 42
    """Decides everything random: the split, the order, augmentation, dropout, the head's first
    weights."""

    device: DeviceName = "auto"
    """Where to train. `auto` takes a GPU if there is one; name it in jobs that must not fall back to
    the CPU."""

    precision: PrecisionSetting = "auto"
    """Arithmetic of the backbone. `auto` is `bfloat16` where the hardware computes in it; on a CPU a
    few depthwise convolutions of a backbone that trains stay in float32, which is faster there. On a GPU
    `float32` is exactly that, without TF32, which `bfloat16` allows for what stays in float32."""

    shard: Sharding = "none"
    """What several devices divide beside the images of each batch. `weights`: each holds a part of the
    backbone's weights, gradients and optimizer states, for networks that do not fit one device; the results
    are those of `none` up to the order of sums. One device alone holds everything. See docs/devices.md."""

    deterministic: bool = True
    """Whether a GPU computes the same bits in every run, which an exact resume needs. `false` leaves it the
    choice of its fastest algorithms. A CPU computes the same bits either way."""

    compile: bool = False
    """Whether torch compiles the network for its training steps. That takes minutes before the first step of
    a stage, needs g++ on a CPU or triton on a GPU, and computes other bits, the same in every run. On two CPU
    cores it gained nothing; no GPU has run it (docs/gpu.md). One device at a time."""

    memory_format: MemoryFormat = "channels_last"
    """Layout of images in memory. `channels_last` is faster for most convolutional networks."""

    monitor: MonitorSetting = "auto"
    """What makes an epoch's model the best one, which is the one that is kept: the highest accuracy, balanced
    accuracy (the mean of the accuracies of all classes), macro F1 (the mean of their F1) or mAP (the mean of
    their average precisions), or the lowest loss. With classes of very different size `val_macro_f1` or
    `val_balanced_accuracy`: accuracy hardly notices a rare class. `val_loss` is plain cross-entropy, whatever
    the loss of training. Of equally good epochs the one of lower `val_loss` is kept. `auto` is
    `val_accuracy`, or `val_map` where an image may have several classes. `val_NAME` is the metric of an
    installed package, see docs/extending.md."""

    data: DataConfig
    """The images: where they lie, how they are split, read and augmented."""

    model: ModelConfig = ModelConfig()
    """The network: a pretrained backbone and a new head."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer, its settings and its weight decay."""

    slice: SliceConfig = SliceConfig()
    """How `slice(…)` spreads a learning rate over the layer groups."""

    one_cycle: OneCycleConfig = OneCycleConfig()
    """The one-cycle schedule, with the names and defaults of fastai's `fit_one_cycle`."""

    loss: LossConfig = LossConfig()
    """The loss that training lowers."""

    ema: Annotated[float, Field(gt=0, le=0.999999)] | None = None
    """Decay of an exponential moving average of the weights, over about 1 / (1 − ema) steps, fewer in the
    first ones of a stage: 0.99 for stages of hundreds of steps, 0.999 for thousands. The average is what is
    validated and kept, and what the next stage starts from. `null` takes the weights as the last step left
    them. See docs/recipe.md."""

    stages: Annotated[
        tuple[StageConfig, ...], Field(strict=False, max_length=64, json_schema_extra={"minItems": 1})
    ] = Field(
        default_factory=lambda validated: default_stages(validated["optimizer"].name), validate_default=False
    )
    """The stages of training, in order: by default the head alone, then everything."""

    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    """When a stage ends before its last epoch; training then continues with the next stage."""

    lr_finder: LrFinderConfig = LrFinderConfig()
    """How a learning rate is found, by `finetune lr-find` and for `lr: auto`."""

    checkpoint: CheckpointConfig = CheckpointConfig()
    """What training resumes from after it was stopped or killed."""

    output: OutputConfig = OutputConfig()
    """Where results go."""

    loggers: Annotated[tuple[LoggerName, ...], Field(strict=False)] = ()
    """Where the curves of a training go beside its run directory: any of `tensorboard`, `wandb` and `mlflow`,
    each of which is an extra. One that fails does not stop a training. See docs/loggers.md."""

    @property
    def stage_names(self) -> list[str]:
        """The names of the stages, in order."""
        return [stage.name for stage in self.stages]

    def find_stage(self, name: str | None, *, default: int) -> int:
        """Return the position of the stage that `--stage` names, or `default`, which may count from the end.

        Raises:
            ConfigError: no such stage.
        """
        names = self.stage_names
        if name is None:
            return default % len(names)
        if name not in names:
            raise ConfigError(
                f"--stage {printable(name)}: there is no such stage; the config has {', '.join(names)}."
            )
        return names.index(name)

    @model_validator(mode="wrap")
    @classmethod
    def _report_mistakes(
        cls, values: Any, check: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        """Make `Config(…)` and `Config.model_validate` in Python report mistakes as a config file does.

        Raises:
            ConfigError: with one line per mistake.
        """
        try:
            return check(values)
        except ValidationError as error:
            if info.context == WITH_MARKS:
                raise
            mistakes = describe(error, cls, read_values(values, "Config"))
            raise InvalidConfigError(in_order(mistakes)) from None

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        problems = _decay_problems(self.stages, self.optimizer)
        metric = self.early_stopping.metric or self.monitor
        if metric != "val_loss" and self.early_stopping.min_delta > _MOST_GAIN:
            where = ("early_stopping", "min_delta")
            problems.append(
                (where, f"no epoch gains that much of a score from 0 to 1; at most {_MOST_GAIN:g}")
            )
        if problems:
            text = "; ".join(f"{'.'.join(where)}: {what}" for where, what in problems)
            raise PydanticCustomError("sections_disagree", "{text}", {"text": text, "problems": problems})
        return self

    @field_validator("loss")
    @classmethod
    def _focal_loss_has_one_right_answer(cls, loss: LossConfig, info: ValidationInfo) -> LossConfig:
        data = info.data.get("data")
        if loss.focus and data is not None and data.mixes:
            raise ValueError(
                "focal goes by the probability of what is right, and of mixed images (data.mixup, "
                "data.cutmix) nothing is; write name: auto, or leave mixing out"
            )
        return loss

    @field_validator("stages")
    @classmethod
    def _stages_agree(cls, stages: tuple[StageConfig, ...], info: ValidationInfo) -> tuple[StageConfig, ...]:
        if not stages:
            raise ValueError("expected a list of at least one stage")
        problems = _stage_problems(stages, info.data.get("model"), info.data.get("data"))
        if (
            problems
        ):  # pydantic cannot place one validator's errors at several keys, so the places travel along
            text = "; ".join(f"stages[{index}].{key}: {what}" for (index, key), what in problems)
            raise PydanticCustomError("stages_disagree", "{text}", {"text": text, "problems": problems})
        return stages
