"""The optimizers by name: how each moves the weights, and what can be set of it. Nothing here needs torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from finetune.choices import Decay, Form, OptimizerName


@dataclass(frozen=True)
class Settings:
    """Settings of an optimizer, in one vocabulary for all; None stands for what it does not have."""

    momentum: float | None = None
    """b, or b1: weight of the past in the mean of gradients, which a one-cycle schedule moves."""
    beta2: float | None = None
    """b2: weight of the past in the mean of squared gradients (for `lion`, in that of gradients)."""
    eps: float | None = None
    """ε: keeps a division from one by zero."""
    form: Form | None = None
    """`ema` averages the gradients with a factor 1−b; `classic` sums them without it, as torch does."""

    def given(self) -> dict[str, float | str]:
        """Return those that are there, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __or__(self, other: "Settings") -> "Settings":
        """Return these settings, with those of the other that are there in their place."""
        return Settings(**{**self.given(), **other.given()})  # type: ignore[arg-type]


@dataclass(frozen=True)
class UpdateRule:
    """One optimizer: w are the weights, g is the gradient, a the rate, m, s and u start from 0."""

    update: str
    source: str
    """Who proposed it."""
    settings: Settings = field(default_factory=Settings)
    """What can be set, with the defaults."""
    decays: tuple[Decay, ...] = ("decoupled", "l2")
    """The kinds of weight decay that it can have, the default first."""


_ADAM = Settings(momentum=0.9, beta2=0.999, eps=1e-8)

UPDATE_RULES: Mapping[OptimizerName, UpdateRule] = {
    "sgd": UpdateRule("w ← w − a·g", "Robbins and Monro, 1951"),
    "momentum": UpdateRule(
        "m ← b·m + (1−b)·g; w ← w − a·m", "Polyak, 1964", Settings(momentum=0.9, form="ema")
    ),
    "nesterov": UpdateRule(
        "as `momentum`, with g taken at the look-ahead point w − a·b·m",
        "Nesterov, 1983",
        Settings(momentum=0.9, form="ema"),
    ),
    "adagrad": UpdateRule("s ← s + g²; w ← w − a·g/√(s+ε)", "Duchi et al., 2011", Settings(eps=1e-8)),
    "rmsprop": UpdateRule(
        "s ← b2·s + (1−b2)·g²; w ← w − a·g/√(s+ε)", "Hinton, 2012", Settings(beta2=0.99, eps=1e-8)
    ),
    "adadelta": UpdateRule(
        "s as `rmsprop`; d = g·√(u+ε)/√(s+ε); w ← w − a·d; u ← b2·u + (1−b2)·d²; a is 1 as a rule",
        "Zeiler, 2012",
        Settings(beta2=0.9, eps=1e-6),
        # At a rate of 1, decoupled decay would take the share `weight_decay` off the weights at each step.
        decays=("l2", "decoupled"),
    ),
    "adam": UpdateRule(
        "m as `momentum`, s as `rmsprop`; m̂ = m/(1−b1ⁱ), ŝ = s/(1−b2ⁱ) at step i; w ← w − a·m̂/(√ŝ+ε)",
        "Kingma and Ba, 2015",
        _ADAM,
    ),
    "adamw": UpdateRule(
        "`adam` with decoupled decay", "Loshchilov and Hutter, 2019", _ADAM, decays=("decoupled",)
    ),
    "nadam": UpdateRule("`adam` with Nesterov's momentum, warmed up", "Dozat, 2016", _ADAM),
    "radam": UpdateRule(
        "`adam`, but a multiple of m̂ alone until s is reliable, then rectified", "Liu et al., 2020", _ADAM
    ),
    "ranger": UpdateRule(
        "`radam`; after every 6 steps w goes back half way to where it was before them",
        "Wright, 2019; Zhang et al., 2019",
        Settings(momentum=0.95, beta2=0.999, eps=1e-5),
    ),
    "lamb": UpdateRule(
        "r = m̂/(√ŝ+ε) as in `adam`; w ← w − a·min(‖w‖/‖r‖, 10)·r for each tensor, for vectors −a·r",
        "You et al., 2020",
        Settings(momentum=0.9, beta2=0.999, eps=1e-6),
    ),
    "lion": UpdateRule(
        "w ← w − a·sign(b1·m + (1−b1)·g); m ← b2·m + (1−b2)·g",
        "Chen et al., 2023",
        Settings(momentum=0.9, beta2=0.99),
    ),
}
