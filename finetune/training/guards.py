"""Stop a training whose loss, gradients or weights cannot be right: negative, NaN or infinite.

Pure checks of the numbers that a step has measured, and the messages about them. Numbers arrive from the
device after the weights have changed again, so a step is judged by the norms measured when it was made.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from finetune.errors import DivergenceError
from finetune.text import counted
from finetune.training.norms import NamedTensor, Norms

_KEPT = "the best model so far stays in the run directory."


@dataclass(frozen=True)
class Place:
    """Which step it was, and at which rates."""

    stage: int
    """Counted from 0."""
    epoch: int
    """Counted from 0."""
    step: int
    """Steps of the stage before this one."""
    lrs: tuple[float, ...]

    def __str__(self) -> str:
        rates = ", ".join(dict.fromkeys(f"{lr:.3g}" for lr in self.lrs))
        return f"epoch {self.epoch + 1}, step {self.step + 1}, rates {rates}"


@dataclass(frozen=True)
class Evidence:
    """What one step left to be judged by."""

    place: Place
    loss: float
    gradients: Norms
    """Before any clipping."""
    weights: Norms
    """Of the parameters and running statistics that move, before the step."""
    still: Iterable[NamedTensor]
    """The parameters and statistics that do not move; looked at only where something is wrong."""
    batch: tuple[Tensor, Tensor]
    """Images (N, …) and targets (N, …); looked at only where something is wrong."""


def check_step(evidence: Evidence) -> None:
    """Refuse a step whose loss or gradient cannot be.

    Raises:
        DivergenceError: a negative loss, or a loss or a gradient that is NaN or infinite.
    """
    if evidence.loss < 0:
        _refuse_negative(evidence)
    if not math.isfinite(evidence.loss):
        first = f"The loss is {evidence.loss} at {evidence.place}: training has diverged."
        _stop(evidence, first, _cause_of_loss(evidence))
    broken = evidence.gradients.broken
    if broken:
        first = f"The gradient is not finite at {evidence.place}, where the loss is {evidence.loss:.4g}."
        _stop(evidence, first, _cause_of_gradient(evidence, broken))


def check_weights(weights: Norms, place: Place) -> None:
    """Refuse weights that the last step of an epoch has broken, before they are validated and saved.

    Raises:
        DivergenceError: a parameter or a running statistic that is NaN or infinite.
    """
    if weights.broken:
        name, norm = weights.broken[0]
        raise DivergenceError(
            f"The weights are not finite after {place}: training has diverged.\n"
            f"The first is {name}, of norm {norm}; the rate is too high. {_advice(place)}",
            step=place.step + 1,
        )


def _refuse_negative(evidence: Evidence) -> NoReturn:
    several = evidence.batch[1].is_floating_point()
    cause = _broken_targets(evidence.batch[1]) or (
        "Targets or outputs are of the wrong kind, for instance probabilities where their logarithms belong."
    )
    raise DivergenceError(
        f"The loss is {evidence.loss:.4g} at {evidence.place}; cross-entropy is never negative.\n"
        f"{cause} The loss needs logits and {'targets from 0 to 1' if several else 'class numbers'}; {_KEPT}",
        step=evidence.place.step + 1,
    )


def _stop(evidence: Evidence, first: str, cause: str) -> NoReturn:
    raise DivergenceError(f"{first}\n{cause}\n{_advice(evidence.place)}", step=evidence.place.step + 1)


def _advice(place: Place) -> str:
    return (
        f"Try a rate three times lower (stages.{place.stage}.lr), or precision=float32 if it is bfloat16; "
        f"{_KEPT}"
    )


def _cause_of_loss(evidence: Evidence) -> str:
    return (
        _broken_batch(evidence.batch)
        or _broken_weights(evidence)
        or "All weights were finite before this step, and so are the images: the batch or the forward pass "
        "is the cause, where a number became too large."
    )


def _cause_of_gradient(evidence: Evidence, broken: list[tuple[str, float]]) -> str:
    name, norm = broken[0]
    where = f"The first of {len(broken)} such parameters is {name}, of gradient norm {norm}"
    # Back-propagation goes from the last layer to the first: the last one broken is next to the source.
    if len(broken) > 1:
        where += f", the last {broken[-1][0]}, where it began"
    weights = _broken_weights(evidence)
    return f"{where}.{' ' + weights if weights else ''}"


def faults_of(batch: tuple[Tensor, Tensor], loss: float, still: Iterable[NamedTensor] = ()) -> int:
    """Count what points at a rank: 2 for a broken batch, 1 for a loss that is not finite.

    And 1 for a frozen weight that is not finite, of which another rank may hold other rows.
    """
    frozen = not all(bool(torch.isfinite(tensor).all()) for _, tensor in still)
    return 2 * (_broken_batch(batch) is not None) + (not math.isfinite(loss)) + frozen


def worst_of(found: Sequence[tuple[int, str]]) -> str:
    """Return the text of the rank with the most faults, with its number unless all have as many."""
    worst = max(faults for faults, _ in found)
    rank = next(rank for rank, (faults, _) in enumerate(found) if faults == worst)
    everywhere = all(faults == worst for faults, _ in found)
    return found[rank][1] if everywhere else f"rank {rank}: {found[rank][1]}"


def _broken_batch(batch: tuple[Tensor, Tensor]) -> str | None:
    """Say what is wrong with a batch; None where images and targets are what they can be."""
    images, targets = batch
    if images.is_floating_point():
        wrong = torch.nonzero(~torch.isfinite(images).flatten(1).all(1)).flatten().tolist()
        if wrong:
            numbers = ", ".join(str(number + 1) for number in wrong[:5])
            return (
                f"The batch is the cause: {len(wrong):,} of its {counted(len(images), 'image')} have values "
                f"that are not finite (number {numbers} in the batch)."
            )
    return _broken_targets(targets)


def _broken_targets(targets: Tensor) -> str | None:
    """Say what is wrong with the targets; None where they are classes (N,), or from 0 to 1 (N, C)."""
    if targets.is_floating_point():
        if not bool(((targets >= 0) & (targets <= 1)).all()):  # NaN is neither
            what = f"must lie between 0 and 1, they go from {_span(targets)}"
            return f"The batch is the cause: its targets {what}."
    elif bool((targets < 0).all()):
        return f"The batch is the cause: its targets are no classes, they go from {_span(targets)}."
    return None


def _span(targets: Tensor) -> str:
    return f"{targets.min():g} to {targets.max():g}"


def _broken_weights(evidence: Evidence) -> str | None:
    """Say which weight was broken before the step; None if all were finite."""
    for name, tensor in evidence.still:
        if not bool(torch.isfinite(tensor).all()):
            return f"{name} is frozen and not finite: the pretrained weights are damaged."
    if not evidence.weights.broken:
        return None
    name, norm = evidence.weights.broken[0]
    return f"The weights were broken before this step, first {name}, of norm {norm}: the rate is too high."
