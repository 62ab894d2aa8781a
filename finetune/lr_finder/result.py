"""What a search for a learning rate came to, for programs and for people."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finetune.choices import Heuristic
from finetune.lr_finder.heuristics import Curve, Suggestion, choose, decades, divergence, suggest
from finetune.lr_finder.race import Candidate, League


@dataclass(frozen=True)
class StartingWeights:
    """What a model holds when a rate is searched for."""

    initial: str
    """`model.weights` of the config; under them is a new head, unless stages or a run have trained it."""
    trained_stages: tuple[str, ...] = ()
    """Stages that have been trained since, in order."""
    untrained_stages: tuple[str, ...] = ()
    """Stages before the one searched that have not been trained."""
    run: str | None = None
    """Directory of the run whose best weights these are; None where they are of no run."""
    stage: str | None = None
    """Stage of the run that they are from."""
    epoch: int | None = None
    """Epoch of that stage, from 1."""

    def __str__(self) -> str:
        if self.run is not None:
            return f"the best weights of {self.run} (stage {self.stage}, epoch {self.epoch})"
        if self.trained_stages:
            return f"the model after stage {self.trained_stages[-1]}"
        text = f"weights {self.initial} and a new head"
        if self.untrained_stages:
            stages = " and ".join(self.untrained_stages)
            text += f": {stages} not trained (--run RUN starts from the weights of a run)"
        return text


@dataclass(frozen=True)
class Decision:
    """Which rate to use, and how it was chosen."""

    lr: float | None
    """None if no rate can be answered for."""
    found_by: tuple[str, ...] = ()
    """Names of what suggested it: heuristics, or a later round of the race; empty without a rate."""
    refusal: str = ""
    """Why there is no rate; empty where there is one."""

    def unless(self, refusal: str | None) -> "Decision":
        """Return the decision, or none if there is a reason against it."""
        return self if refusal is None else Decision(None, refusal=refusal)


@dataclass(frozen=True)
class LrFindResult:
    """The outcome of a search: the curve, what was read from it, and which rate was picked."""

    stage: str
    weights: StartingWeights
    """What the model held when the rate was searched for."""
    pick: str
    """`lr_finder.pick` of the config: a heuristic, or `race`."""
    lr: float | None
    """Peak rate of the head, rounded to three digits; None if no rate can be answered for."""
    found_by: tuple[str, ...]
    """Names of what suggested it: heuristics, or a later round of the race; empty without a rate."""
    refusal: str
    """Why there is no rate; empty where there is one."""
    suggestions: tuple[Suggestion, ...]
    curves: tuple[Curve, ...]
    """One for each repeat of the range test."""
    curve: Curve
    """Their mean, which the suggestions are read from."""
    league: League | None
    """The outcome of the race; None without one."""
    race_steps: int
    seconds: float

    @property
    def by(self) -> str:
        """Say what found the rate, or why there is none."""
        if self.lr is None:
            return self.refusal
        names = " and ".join(self.found_by)
        if self.league is not None:
            return f"race, won by {names}"
        reasons = [s.reason for s in self.suggestions if s.heuristic == self.pick and s.reason]
        return f"{names}, in place of {self.pick} ({reasons[0]})" if reasons else names

    @property
    def divergence(self) -> float | None:
        """The rate above which the loss diverges; None where it does not."""
        return divergence(self.curve)

    @property
    def agreement(self) -> float:
        """How far the suggestions are apart, in decades."""
        return decades([suggestion.lr for suggestion in self.suggestions if suggestion.lr is not None])

    @property
    def spread(self) -> dict[Heuristic, float]:
        """How far each heuristic's answers to the repeated sweeps are apart, in decades."""
        if len(self.curves) < 2:
            return {}
        answers = [suggestion for curve in self.curves for suggestion in suggest(curve, self.pick)]
        names = dict.fromkeys(answer.heuristic for answer in answers)
        rates = {name: [a.lr for a in answers if a.heuristic == name and a.lr is not None] for name in names}
        return {name: decades(found) for name, found in rates.items() if len(found) > 1}

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row of text for each heuristic: name, rate, spread if there are repeats, and reason."""
        return [
            (
                s.heuristic,
                "–" if s.lr is None else f"{s.lr:.2e}",
                *([self._spread_cell(s.heuristic)] if self.repeated else []),
                s.reason or ("← picked" if self.is_pick(s.heuristic) else ""),
            )
            for s in self.suggestions
        ]

    def is_pick(self, heuristic: str) -> bool:
        """Tell whether the rate is that of a heuristic, without a race."""
        return self.league is None and heuristic in self.found_by

    def _spread_cell(self, heuristic: Heuristic) -> str:
        decades_apart = self.spread.get(heuristic)
        return "–" if decades_apart is None else f"{decades_apart:.1f} decades"

    @property
    def repeated(self) -> bool:
        """Whether the range test was made more than once."""
        return len(self.curves) > 1

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The rates that raced, from the lowest up; empty without a race."""
        return () if self.league is None else self.league.candidates

    @property
    def ranking(self) -> list[Candidate]:
        """The rates that raced, from the lowest validation loss up; those that diverged last."""
        return sorted(self.candidates, key=lambda one: math.inf if one.val_loss is None else one.val_loss)

    def league_rows(self) -> list[tuple[str, ...]]:
        """Return a row of text for each candidate, best first: rate, loss, error, accuracy, by whom, mark."""
        return [
            (
                f"{r.lr:.2e}",
                "diverged" if r.val_loss is None else f"{r.val_loss:.4f}",
                "–" if not r.standard_error else f"{r.standard_error:.4f}",
                "–" if r.val_accuracy is None else f"{r.val_accuracy:.2%}",
                ", ".join(r.names),
                "← picked" if self._is_picked(r) else "",
            )
            for r in self.ranking
        ]

    def league_notes(self) -> list[str]:
        """Say what the table of the race does not: what guessing brings, and why not the lowest loss won."""
        if self.league is None or self.league.chance_loss is None:
            return []
        notes = [f"random guessing gives {self.league.chance_loss:.4f}"]
        if self.lr is not None and not self._is_picked(self.ranking[0]):
            won = self.league.winner
            if won is not None and won.solved:
                notes.append(
                    "a loss below a fiftieth of that solves the task; of such rates the most accurate is "
                    "picked, then the lowest"
                )
            else:
                notes.append(
                    "losses within one standard error (±) of the lowest count as equal; of these rates the "
                    "one with the highest accuracy is picked"
                )
        return notes

    def _is_picked(self, candidate: Candidate) -> bool:
        return self.lr is not None and f"{candidate.lr:.3g}" == f"{self.lr:.3g}"

    def to_dict(self) -> dict[str, Any]:
        """Return the search as `lr-find --json` and the run directory document it."""
        return {
            "stage": self.stage,
            "weights": asdict(self.weights),
            "lr": self.lr,
            "pick": self.pick,
            "by": list(self.found_by),
            "refusal": self.refusal or None,
            "suggestions": [
                {**asdict(s), "spread_decades": self.spread.get(s.heuristic)} for s in self.suggestions
            ],
            "agreement_decades": self.agreement,
            "divergence": self.divergence,
            "race_steps": self.race_steps,
            "race": [asdict(candidate) for candidate in self.candidates],
            "chance_loss": None if self.league is None else self.league.chance_loss,
            "curve": {
                "lr": list(self.curve.lrs),
                "loss": list(self.curve.losses),
                "smoothed": self.curve.smoothed(),
                "repeats": [list(curve.losses) for curve in self.curves],
            },
            "seconds": round(self.seconds, 3),
        }


def decide(suggestions: Sequence[Suggestion], league: League | None, pick: str) -> Decision:
    """Choose the rate to use.

    The winner of the race; without a race, the heuristic `pick`, or the next of `ORDER` if it refuses.
    """
    if league is not None:
        best = league.winner
        if best is not None:
            return Decision(best.lr, best.names)
        return Decision(None, refusal=_no_winner(league) if league.candidates else _refusals(suggestions))
    chosen = choose(suggestions, pick)
    if chosen is None or chosen.lr is None:
        return Decision(None, refusal=_refusals(suggestions))
    return Decision(chosen.lr, (chosen.heuristic,))


def _no_winner(league: League) -> str:
    losses = [candidate.val_loss for candidate in league.candidates if candidate.val_loss is not None]
    if not losses or league.chance_loss is None:
        return "every rate in the race diverged"
    return (
        f"no rate in the race beats random guessing, which gives a validation loss of "
        f"{league.chance_loss:.4f}; the lowest is {min(losses):.4f}"
    )


def _refusals(suggestions: Sequence[Suggestion]) -> str:
    return "; ".join(dict.fromkeys(suggestion.reason for suggestion in suggestions))
