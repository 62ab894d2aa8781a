"""What a search for a learning rate came to, for programs and for people."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finetune.choices import Heuristic
from finetune.lr_finder.heuristics import ORDER, Curve, Suggestion, choose, decades, divergence, suggest
from finetune.lr_finder.race import Candidate, winner


@dataclass(frozen=True)
class LrFindResult:
    """The outcome of a search: the curve, what was read from it, and which rate was taken."""

    stage: str
    weights: str
    """What the model held when the rate was swept."""
    pick: str
    """What the config asked for: a heuristic, or `race`."""
    lr: float | None
    """Peak rate of the head, rounded to three digits; None if no rate can be answered for."""
    by: str
    """Who found it: a heuristic, or the winner of the race; or why there is none."""
    suggestions: tuple[Suggestion, ...]
    curves: tuple[Curve, ...]
    """One for each repeat of the range test."""
    curve: Curve
    """Their mean, which the suggestions are read from."""
    racers: tuple[Candidate, ...]
    """The league table in the order of the rates; empty without a race."""
    race_steps: int
    seconds: float

    @property
    def divergence(self) -> float | None:
        """The rate from which on the loss stays well above where it began."""
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
        answers = [suggestion for curve in self.curves for suggestion in suggest(curve)]
        rates = {name: [a.lr for a in answers if a.heuristic == name and a.lr is not None] for name in ORDER}
        return {name: decades(found) for name, found in rates.items() if len(found) > 1}

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row of text for each heuristic: name, rate, spread if there are repeats, and reason."""
        return [
            (
                s.heuristic,
                "–" if s.lr is None else f"{s.lr:.2e}",
                *([self._spread_cell(s.heuristic)] if self.repeated else []),
                s.reason or ("← picked" if self.by.startswith(s.heuristic) else ""),
            )
            for s in self.suggestions
        ]

    def _spread_cell(self, heuristic: Heuristic) -> str:
        decades_apart = self.spread.get(heuristic)
        return "–" if decades_apart is None else f"{decades_apart:.1f} decades"

    @property
    def repeated(self) -> bool:
        """Whether the range test was made more than once."""
        return len(self.curves) > 1

    def league(self) -> list[tuple[str, ...]]:
        """Return a row of text for each racer, best first: rate, loss, its error, accuracy, by whom, mark."""
        best_first = sorted(self.racers, key=lambda r: math.inf if r.val_loss is None else r.val_loss)
        return [
            (
                f"{r.lr:.2e}",
                "diverged" if r.val_loss is None else f"{r.val_loss:.4f}",
                "–" if not r.standard_error else f"{r.standard_error:.4f}",
                "–" if r.val_accuracy is None else f"{r.val_accuracy:.2%}",
                ", ".join(r.names),
                "← picked" if self.lr is not None and f"{r.lr:.3g}" == f"{self.lr:.3g}" else "",
            )
            for r in best_first
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the search as `lr-find --json` and the run directory document it."""
        return {
            "stage": self.stage,
            "weights": self.weights,
            "lr": self.lr,
            "pick": self.pick,
            "by": self.by,
            "suggestions": [
                {**asdict(s), "spread_decades": self.spread.get(s.heuristic)} for s in self.suggestions
            ],
            "agreement_decades": self.agreement,
            "divergence": self.divergence,
            "race_steps": self.race_steps,
            "race": [asdict(racer) for racer in self.racers],
            "curve": {
                "lr": list(self.curve.lrs),
                "loss": list(self.curve.losses),
                "smoothed": self.curve.smoothed(),
                "repeats": [list(curve.losses) for curve in self.curves],
            },
            "seconds": round(self.seconds, 3),
        }


def decide(
    suggestions: Sequence[Suggestion], racers: Sequence[Candidate], pick: str
) -> tuple[float | None, str]:
    """Return the rate to take and who found it; or None and the reason.

    The winner of the race; without one, the heuristic asked for, or the next of `ORDER` if it refuses.
    """
    if pick == "race":
        best = winner(racers)
        if best is not None:
            return best.lr, f"race, won by {' and '.join(best.names)}"
        return None, "every rate in the race diverged" if racers else _refusals(suggestions)
    asked: Heuristic = next(name for name in ORDER if name == pick)
    chosen = choose(suggestions, asked)
    if chosen is None or chosen.lr is None:
        return None, _refusals(suggestions)
    if chosen.heuristic == pick:
        return chosen.lr, pick
    refused = next(suggestion.reason for suggestion in suggestions if suggestion.heuristic == pick)
    return chosen.lr, f"{chosen.heuristic}, in place of {pick} ({refused})"


def _refusals(suggestions: Sequence[Suggestion]) -> str:
    return "; ".join(dict.fromkeys(suggestion.reason for suggestion in suggestions))
