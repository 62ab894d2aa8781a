"""The config's section on the optimizer."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from finetune.choices import Decay, Form
from finetune.config.installed_names import OptimizerSetting
from finetune.config.sections import Section
from finetune.optim.installed import update_rule
from finetune.optim.update_rules import Settings


def _default_decay(validated: dict[str, str]) -> Decay:
    return update_rule(validated["name"]).decays[0]


_LEAST_CLIP = 1e-6


class OptimizerConfig(Section):
    """The optimizer, its settings and its weight decay.

    A setting that is `null` is the optimizer's own; one that the optimizer does not have is refused. The
    table of optimizers below says which has which.
    """

    name: OptimizerSetting = "adam"
    """How the weights move; see the table of optimizers below. Each wants rates of its own: `momentum` and
    `nesterov` far larger ones than `adam`, `lion` a third to a tenth of them (Chen et al., 2023), `adadelta`
    about 1. Those of installed packages stand in `finetune optimizers`; see docs/extending.md."""

    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    """Strength of the pull of weights towards 0. 0.1 is often named and usually too much; see
    docs/optimizers.md."""

    decay: Decay = Field(
        default_factory=_default_decay,
        json_schema_extra={"default": "decoupled"},
        validate_default=False,
    )
    """`decoupled` multiplies weights by 1 − lr·weight_decay at each step (AdamW, SGDW); `l2` adds the
    gradient of weight_decay/2 · Σ w² to the loss's. `adadelta` has `l2` by
    default, because at its rate of 1 the other would take that share of all weights at each step."""

    decay_bias_and_norm: bool = False
    """Whether biases and normalisation parameters are decayed as well."""

    momentum: Annotated[float, Field(gt=0, le=0.9999)] | None = None
    """b, the weight of the past in the mean of gradients, which is a mean of about 1/(1−b) of them (Adam's
    first beta). `null` lets it follow `one_cycle.moms`; a number keeps it there."""

    beta2: Annotated[float, Field(ge=0, le=0.999999)] | None = None
    """b2, the weight of the past in the mean of squared gradients (Adam's second beta, torch's `alpha` and
    `rho`, fastai's `sqr_mom`)."""

    eps: Annotated[float, Field(ge=1e-20, le=1)] | None = None
    """ε, which keeps a division from one by zero."""

    form: Form | None = None
    """Of `momentum` and `nesterov`: `ema` averages gradients, with a factor 1−b that keeps the size of a step
    when b moves; `classic` sums them, as torch's SGD does, and so takes rates that are smaller by that
    factor."""

    clip_norm: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Of any optimizer: the largest L2 norm that the gradient of all trained parameters together may have; a
    longer one is shortened to it, in the same direction. `null` leaves gradients as they are. It keeps one
    odd batch from a big step. 1 is a usual value, but what is long depends on the model: in a run's
    events.jsonl `grad_norm` is how long gradients are, and `clip` what each was multiplied by, mostly 1."""

    @field_validator("clip_norm")
    @classmethod
    def _gradients_are_left(cls, clip_norm: float | None) -> float | None:
        if clip_norm is not None and clip_norm < _LEAST_CLIP:
            raise ValueError(f"expected at least {_LEAST_CLIP:g}; nothing is left of gradients that short")
        return clip_norm

    @field_validator("decay")
    @classmethod
    def _decay_fits(cls, decay: Decay, info: ValidationInfo) -> Decay:
        name = info.data.get("name")
        if name is None or decay in (decays := update_rule(name).decays):
            return decay
        if name == "adamw":
            raise ValueError("expected decoupled; that is all that sets adamw apart from adam")
        raise ValueError(f"expected {decays[0]}; {name} has no other")

    @field_validator("momentum", "beta2", "eps", "form")
    @classmethod
    def _optimizer_has_it(cls, value: float | str | None, info: ValidationInfo) -> float | str | None:
        name = info.data.get("name")
        if name is None or value is None:
            return value
        has = update_rule(name).settings.given()
        if info.field_name not in has:
            raise ValueError(f"{name} has no {info.field_name}; it has {', '.join(has) or 'no settings'}")
        return value

    @property
    def settings(self) -> Settings:
        """What is set of the optimizer, None where it keeps its own."""
        return Settings(momentum=self.momentum, beta2=self.beta2, eps=self.eps, form=self.form)
