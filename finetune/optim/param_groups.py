"""What a stage will do to each layer group: who learns, how fast, and with how much decay."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from finetune.choices import BatchNorm, Spacing, TrainedPart
from finetune.machine.divided import rows_of
from finetune.model.layer_groups import LayerGroup, decayed_parameters, layer_rows, learning_parameters
from finetune.optim.learning_rates import LearningRate, spread


@dataclass(frozen=True)
class RateRule:
    """How a stage's learning rate and weight decay reach the parameters."""

    divisor: float
    """`slice(hi)` gives groups before the head `hi / divisor`."""
    spacing: Spacing
    weight_decay: float
    decay_bias_and_norm: bool


@dataclass(frozen=True)
class GroupPlan:
    """One layer group in one stage."""

    group: LayerGroup
    trainable: bool
    """Whether all of the group learns; norm layers of a frozen group may learn without it."""
    lr: float | None
    """Peak learning rate, or None where nothing learns; a multiple of the rate to be found if `auto`."""
    weight_decay: float | None
    decayed: tuple[nn.Parameter, ...] = field(repr=False, compare=False)
    """What learns and is decayed."""
    undecayed: tuple[nn.Parameter, ...] = field(repr=False, compare=False)
    """What learns without weight decay: biases, norm layers, and what a block holds beside its layers."""
    auto: bool = False
    """Whether the rate is still to be found."""

    @property
    def shown_lr(self) -> float | str | None:
        """The peak learning rate as it is shown and recorded: `auto/3` if it is still to be found."""
        if self.lr is None or not self.auto:
            return self.lr
        return "auto" if self.lr == 1 else f"auto/{1 / self.lr:.3g}"

    def row(self) -> tuple[object, ...]:
        """Return the group's row of the table before training."""
        layers = layer_rows(self.group)
        state = "trained" if self.trainable else "frozen" if self.lr is None else "only norms train"
        return (
            self.group.index + 1,
            self.group.name,
            len(layers),
            sum(layer["parameters"] for layer in layers),
            state,
            self._lr_cell(),
            "–" if self.weight_decay is None else f"{self.weight_decay:g}",
            "–" if self.weight_decay is None else f"{sum(parameter.numel() for parameter in self.decayed):,}",
        )

    def _lr_cell(self) -> str:
        shown = self.shown_lr
        if shown is None:
            return "–"
        return shown if isinstance(shown, str) else f"{shown:.3g}"

    @property
    def title(self) -> str:
        """Name the group as the heading of its layers."""
        return f"group {self.group.index + 1}: {self.group.name}"

    def layer_table(self) -> list[tuple[object, ...]]:
        """Return a row for each layer that holds parameters."""
        return [
            (
                row["name"],
                row["type"],
                "yes" if row["affine"] else "",
                "×".join(map(str, row["shape"])),
                row["parameters"],
            )
            for row in layer_rows(self.group)
        ]

    def summary(self) -> dict[str, Any]:
        """Return the group as the run's events record it."""
        return {"name": self.group.name, "lr": self.shown_lr, "weight_decay": self.weight_decay}

    def to_dict(self) -> dict[str, Any]:
        """Return the group as `finetune groups --json` documents it."""
        layers = layer_rows(self.group)
        return {
            "index": self.group.index,
            "name": self.group.name,
            "layers": layers,
            "parameters": sum(layer["parameters"] for layer in layers),
            "trainable": self.trainable,
            "lr": self.shown_lr,
            "weight_decay": self.weight_decay,
        }


TABLE_COLUMNS = ("group", "name", "layers", "parameters", "state", "peak lr", "weight decay", "decayed")
# The order in which they go where a terminal has no room for all.
LEAST_IMPORTANT_COLUMNS = ("decayed", "weight decay", "layers", "parameters")


def trainable_groups(train: int | TrainedPart, n_groups: int) -> int:
    """Return how many groups, counted from the head, a stage trains."""
    if train == "head":
        return 1
    return n_groups if train == "all" else train


def plan_stage(
    layer_groups: Sequence[LayerGroup],
    *,
    trainable: int,
    batch_norm: BatchNorm,
    lr: LearningRate,
    rule: RateRule,
) -> list[GroupPlan]:
    """Return each group's part in a stage, whatever the model is frozen for now; nothing is changed.

    Args:
        layer_groups: from the first layers to the head.
        trainable: how many of them learn, counted from the head.
        batch_norm: whether the norm layers of the others learn.
        lr: the stage's peak rate.
        rule: how rate and decay reach the parameters.
    """
    rates = spread(lr, len(layer_groups), divisor=rule.divisor, spacing=rule.spacing)
    plans = []
    for group, rate in zip(layer_groups, rates, strict=True):
        learns_whole = group.index >= len(layer_groups) - trainable
        learning = learning_parameters(group, trainable=learns_whole, batch_norm=batch_norm)
        decayed, undecayed = _by_decay(group, learning, rule)
        plans.append(
            GroupPlan(
                group=group,
                trainable=learns_whole,
                lr=rate if learning else None,
                weight_decay=rule.weight_decay if learning else None,
                decayed=decayed,
                undecayed=undecayed,
                auto=lr.auto,
            )
        )
    return plans


def optimizer_groups(plans: Sequence[GroupPlan]) -> list[dict[str, Any]]:
    """Return torch's parameter groups for a planned stage: (layer group × decayed or not), none empty.

    Each has the name of its layer group, so that what is measured of both halves can be put together again.
    Of parameters that are divided over ranks they hold the rows of this one.
    """
    groups = []
    for plan in plans:
        for parameters, weight_decay in ((plan.decayed, plan.weight_decay), (plan.undecayed, 0.0)):
            if parameters:
                rates = {"lr": plan.lr, "weight_decay": weight_decay}
                groups.append({"params": [*map(rows_of, parameters)], "name": plan.group.name, **rates})
    return groups


def _by_decay(
    group: LayerGroup, learning: Sequence[nn.Parameter], rule: RateRule
) -> tuple[tuple[nn.Parameter, ...], tuple[nn.Parameter, ...]]:
    """Sort the learning parameters of a group into those that are decayed, and the others."""
    ids = {id(parameter) for parameter in learning}
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for parameter, is_decayed in decayed_parameters(group):
        if id(parameter) in ids:
            (decayed if is_decayed or rule.decay_bias_and_norm else undecayed).append(parameter)
    return tuple(decayed), tuple(undecayed)
