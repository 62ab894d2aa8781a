"""What `finetune rank` has found, for people and for programs."""

import math
from dataclasses import dataclass
from typing import Any

from finetune.analysis.uncertainty import is_beyond_chance, standard_error
from finetune.commands.rank.candidates import LeftOut
from finetune.display import Display
from finetune.experiment.backbone_score import BackboneScore

_COLUMNS = ("architecture", "weights", "px", "accuracy", "behind", "images/s", "parameters", "MB")
_LEAST_IMPORTANT = ("weights", "MB", "px", "parameters", "images/s")


@dataclass(frozen=True)
class Ranking:
    """Backbones by what they are worth for some images, the best first."""

    scores: tuple[BackboneScore, ...]
    score: str
    """which score they are ranked by, such as `accuracy` or `map`"""
    images: int
    """how many it is a mean over"""
    on_val: bool
    """whether these are the validation images, else all, each by a fit to all others"""
    left_out: tuple[LeftOut, ...] = ()

    @property
    def best(self) -> BackboneScore:
        """The backbone with the highest score; of equal ones, that with the fewest parameters."""
        return self.scores[0]

    def behind(self, other: BackboneScore) -> tuple[float, float]:
        """Return how far a backbone is behind the best, and the standard error of that, by paired images."""
        error = standard_error(self.best.per_image - other.per_image)
        return self.best.score - other.score, error

    @property
    def indistinguishable(self) -> tuple[BackboneScore, ...]:
        """The best, and all whose distance from it may be chance."""
        return tuple(score for score in self.scores if not is_beyond_chance(*self.behind(score)))

    def to_list(self) -> list[dict[str, Any]]:
        """Return the backbones as `rank --json` documents them."""
        alike = self.indistinguishable
        return [self._row(score, indistinguishable=score in alike) for score in self.scores]

    def _row(self, score: BackboneScore, *, indistinguishable: bool) -> dict[str, Any]:
        behind, error = self.behind(score)
        return {
            "arch": score.arch,
            "weights": score.weights,
            "accuracy": score.score,
            "standard_error": _known(score.standard_error),
            "images_per_second": score.images_per_second,
            "parameters": score.parameters,
            "megabytes": score.megabytes,
            "image_size": score.image_size,
            "score": self.score,
            "images": self.images,
            "behind": behind,
            "behind_standard_error": _known(error),
            "indistinguishable": indistinguishable,
        }


def _known(value: float) -> float | None:
    """Return a number that JSON has; None for NaN."""
    return None if math.isnan(value) else value


def show(ranking: Ranking, display: Display) -> None:
    """Show the table, which of the first may be as good as each other, and what was left out."""
    columns = tuple(_name(ranking.score) if name == "accuracy" else name for name in _COLUMNS)
    rows = [
        (
            score.arch,
            score.weights,
            score.image_size,
            f"{100 * score.score:.1f} ± {100 * score.standard_error:.1f}%",
            "–" if score is ranking.best else "{:.1f} ± {:.1f}".format(*_points(ranking.behind(score))),
            round(score.images_per_second),
            score.parameters,
            round(score.megabytes),
        )
        for score in ranking.scores
    ]
    display.table(columns, rows, least_important=_LEAST_IMPORTANT)
    display.say(verdict(ranking))


def verdict(ranking: Ranking) -> str:
    """Say what the order is by, and what of it is more than chance."""
    where = f"the {ranking.images:,} validation images"
    if not ranking.on_val:
        where = f"{ranking.images:,} images, each by a fit to the others"
    first = f"by {_name(ranking.score)} of ridge regression on {where}; ± standard error"
    alike = [score for score in ranking.indistinguishable if score is not ranking.best]
    if len(ranking.scores) == 1:
        return first
    if not alike:
        return f"{first}\n{ranking.best.arch} is ahead of all others by more than chance"
    names = ", ".join(score.arch for score in alike)
    fastest = max([ranking.best, *alike], key=lambda score: score.images_per_second)
    faster = "" if fastest is ranking.best else f"; the fastest of these is {fastest.arch}"
    return f"{first}\nindistinguishable from {ranking.best.arch} (within 2 standard errors): {names}{faster}"


def _points(behind: tuple[float, float]) -> tuple[float, float]:
    return 100 * behind[0], 100 * behind[1]


def _name(score: str) -> str:
    """Write the name of a score as people read it."""
    return {"map": "mAP", "macro_f1": "macro F1"}.get(score, score.replace("_", " "))
