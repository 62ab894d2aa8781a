"""The race: train briefly at several rates from the same start, and let the validation images decide.

No heuristic reads every curve right. When a suggestion does badly, the expert's next move is to try ten times
more and ten times less; the race makes that move beforehand.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.lr_finder.heuristics import Suggestion
from finetune.lr_finder.trial import Trial, no_trace
from finetune.optim.schedule import OneCycle

_SAME = 0.2  # decades; rates closer than this are one candidate
_TIE = 1.0  # standard errors within which losses are equal
_SOLVED = 1 / 50  # of the loss of guessing
_BESIDE = math.sqrt(10)  # how far from the leader the later rounds try
_MORE_ROUNDS = 4


@dataclass(frozen=True)
class Entry:
    """A rate that enters the race."""

    lr: float
    """Peak rate of the head."""
    names: tuple[str, ...]
    """Who suggested it."""


@dataclass(frozen=True)
class Candidate:
    """A rate in the race, and how it did."""

    lr: float
    """Peak rate of the head."""
    names: tuple[str, ...]
    """Who suggested it."""
    val_loss: float | None
    """Mean loss of the validation images after the brief training, in nats; None if the training diverged."""
    val_accuracy: float | None
    """0–1; None if the training diverged."""
    standard_error: float | None
    """Of the difference in loss to the candidate with the lowest, over the images; None if it diverged."""
    beats_chance: bool
    """Whether its loss is below that of guessing by more than a standard error of the difference."""
    solved: bool
    """Whether its loss is below a fiftieth of that of guessing: it is right, and sure of it."""


@dataclass(frozen=True)
class League:
    """The outcome of a race."""

    candidates: tuple[Candidate, ...]
    """From the lowest rate up."""
    chance_loss: float | None
    """Mean loss of guessing on the same images, in nats; None if every training diverged."""

    @property
    def winner(self) -> Candidate | None:
        """The best of those that beat chance; None if there are none."""
        return winner([candidate for candidate in self.candidates if candidate.beats_chance])


def line_up(
    suggestions: Sequence[Suggestion], chosen: Suggestion | None, ceiling: float | None
) -> list[Entry]:
    """Return the distinct rates to race, ascending: the suggestions, and ×10 and ÷10 of the chosen one.

    Where every heuristic refuses, a curve that explodes still says where not to go: then the three decades
    below that rate, the `ceiling`, race.
    """
    if chosen is not None and chosen.lr is not None:
        rates: list[tuple[str, float]] = [(s.heuristic, s.lr) for s in suggestions if s.lr is not None]
        rates += [(f"{chosen.heuristic} ÷ 10", chosen.lr / 10), (f"{chosen.heuristic} × 10", chosen.lr * 10)]
    elif ceiling is not None:
        rates = [(f"divergence ÷ {10**power:,}", ceiling / 10**power) for power in (1, 2, 3)]
    else:
        return []
    entries: list[Entry] = []
    for name, lr in sorted(rates, key=lambda rate: rate[1]):
        if entries and _decades(entries[-1].lr, lr) < _SAME:
            entries[-1] = Entry(entries[-1].lr, (*entries[-1].names, name))
        else:
            entries.append(Entry(lr, (name,)))
    return entries


def run_race(
    trial: Trial,
    entries: Sequence[Entry],
    *,
    steps: int,
    cycle: OneCycle,
    guess: Tensor,
    tick: Callable[[], None] = lambda: None,
) -> League:
    """Train at each rate for `steps` steps, all from the same start with the same batches; leave no trace.

    Later rounds try half a decade to either side of the leader, until it has been beaten by neither, or has
    solved the task.

    Args:
        trial: what is trained and validated.
        entries: the rates with the names of who suggested them.
        steps: length of each training.
        cycle: the schedule of the stage itself.
        guess: logits (C,) of a model that knows nothing of an image.
        tick: called after each step.
    """

    def run(entry: Entry) -> _Result | None:
        return _run(trial, _course(cycle, entry.lr, steps), guess, tick)

    results = {entry: run(entry) for entry in entries}
    for number in range(2, 2 + _MORE_ROUNDS):
        leader = winner(_compare(results))
        for entry in _beside(leader, list(results), f"round {number}"):
            results[entry] = run(entry)
    finished = [result for result in results.values() if result is not None]
    chance_loss = float(finished[0].chance_losses.mean()) if finished else None
    return League(tuple(_compare(results)), chance_loss)


def winner(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate with the lowest validation loss; None if all diverged.

    Losses within a standard error of the lowest are a tie, which goes to the higher accuracy, and then to the
    lower loss. Of several that have solved the task, a lower loss says only how fast a rate makes the model
    surer still, which high rates do best until they diverge: of the most accurate the lowest rate wins.
    """
    finished = [candidate for candidate in candidates if candidate.val_loss is not None]
    if not finished:
        return None
    solved = [candidate for candidate in finished if candidate.solved]
    if solved:
        return max(solved, key=lambda one: (_number(one.val_accuracy), -one.lr))
    lowest = min(_number(candidate.val_loss) for candidate in finished)
    tied = [r for r in finished if _number(r.val_loss) - lowest <= _TIE * _number(r.standard_error)]
    return max(tied, key=lambda one: (_number(one.val_accuracy), -_number(one.val_loss)))


@dataclass(frozen=True)
class _Result:
    """How a training that did not diverge went on the validation images."""

    losses: Tensor
    """Of each image, (N,)."""
    accuracy: float
    chance_losses: Tensor
    """Of each image where it is guessed, (N,)."""

    @property
    def beats_chance(self) -> bool:
        gain = self.chance_losses - self.losses
        return float(gain.mean()) > _TIE * _standard_error(gain)

    @property
    def solved(self) -> bool:
        return float(self.losses.mean()) < _SOLVED * float(self.chance_losses.mean())


def _run(
    trial: Trial, course: Iterator[tuple[float, float | None]], guess: Tensor, tick: Callable[[], None]
) -> _Result | None:
    with no_trace(trial.module):
        for loss in trial.steps(course):
            tick()
            if not math.isfinite(loss):
                return None
        logits, targets = trial.validate()
    losses, accuracy = trial.judge(logits, targets)
    chance_losses, _ = trial.judge(guess.expand(logits.shape), targets)
    return _Result(losses, accuracy, chance_losses) if bool(torch.isfinite(losses).all()) else None


def _compare(results: dict[Entry, _Result | None]) -> list[Candidate]:
    """Compare all results with the one of the lowest loss, image by image."""
    finished = [result for result in results.values() if result is not None]
    best = min((r.losses for r in finished), key=lambda losses: float(losses.mean()), default=None)
    candidates = []
    for entry, result in sorted(results.items(), key=lambda item: item[0].lr):
        if result is None or best is None:
            candidates.append(
                Candidate(entry.lr, entry.names, None, None, None, beats_chance=False, solved=False)
            )
            continue
        candidates.append(
            Candidate(
                lr=entry.lr,
                names=entry.names,
                val_loss=float(result.losses.mean()),
                val_accuracy=result.accuracy,
                standard_error=_standard_error(result.losses - best),
                beats_chance=result.beats_chance,
                solved=result.solved,
            )
        )
    return candidates


def _standard_error(differences: Tensor) -> float:
    return float(differences.std(correction=0)) / math.sqrt(len(differences))


def _beside(leader: Candidate | None, entries: Sequence[Entry], name: str) -> list[Entry]:
    """Return the rates half a decade below and above the leader, where nothing near them has raced."""
    if leader is None or leader.solved:
        return []
    tries = [Entry(lr, (name,)) for lr in (leader.lr / _BESIDE, leader.lr * _BESIDE)]
    return [entry for entry in tries if all(_decades(entry.lr, other.lr) >= _SAME for other in entries)]


def _course(cycle: OneCycle, lr: float, steps: int) -> Iterator[tuple[float, float | None]]:
    """Return rate and momentum of each step of a whole cycle."""
    return ((cycle.rate(step / steps, lr), cycle.momentum(step / steps)) for step in range(steps))


def _decades(one: float, other: float) -> float:
    return abs(math.log10(one / other))


def _number(value: float | None) -> float:
    """Return the score of a candidate that finished."""
    assert value is not None
    return value
