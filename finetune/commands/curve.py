"""The story of `finetune curve`: accuracy by number of training images, and what more of them would bring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune.analysis.learning_curve import (
    LEAST_JUDGED,
    LEAST_SIZES,
    Curve,
    Estimate,
    Size,
    fit_curve,
    measure,
    part_sizes,
)
from finetune.commands.prepare import prepare
from finetune.config.config import Config
from finetune.display import Display
from finetune.experiment.image_features import image_features
from finetune.report.learning_curve import CurvePoint, draw_chart, write_plot
from finetune.text import counted, printable

FACTORS = (2, 4)
"""how many times the images are looked ahead to"""

_LISTED = 40  # classes of a table


@dataclass(frozen=True)
class Answer:
    """What `finetune curve` found."""

    data: str
    arch: str
    class_counts: Mapping[str, int]
    """training images of each class"""
    judged: int
    """validation images"""
    whole: Curve
    by_class: Mapping[str, Curve]
    """of each class alone; classes without a validation image are left out"""

    @property
    def refusal(self) -> str:
        """Why nothing is said of more images; empty where something is."""
        if self.whole.forecast:
            return ""
        if len(self.whole.points) < LEAST_SIZES:
            return (
                f"{len(self.whole.points)} sizes of parts, by doubling from two images a class, and "
                f"{LEAST_SIZES} are needed: take 16 images a class or more"
            )
        return f"{counted(self.judged, 'validation image')}, and {LEAST_JUDGED} are needed"

    def points(self) -> list[CurvePoint]:
        """Return what was measured and what is expected, in order."""
        pairs = zip(self.whole.images, self.whole.points, strict=True)
        measured = [CurvePoint(images, "", point) for images, point in pairs]
        ahead = zip(FACTORS, self.whole.more, self.whole.forecast, strict=False)
        return [*measured, *(CurvePoint(images, f"{factor}×", point) for factor, images, point in ahead)]

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as `curve --json` documents it."""
        return {
            "points": self._rows(self.whole.images, [curve.points for curve in self._curves()]),
            "forecast": self._rows(self.whole.more, [curve.forecast for curve in self._curves()]),
            "refusal": self.refusal or None,
        }

    def _curves(self) -> list[Curve]:
        return [self.whole, *self.by_class.values()]

    def _rows(self, images: Sequence[int], curves: Sequence[Sequence[Estimate]]) -> list[dict[str, Any]]:
        whole, *classes = curves
        total = sum(self.class_counts.values())
        rows = []
        for number, (size, estimate) in enumerate(zip(images, whole, strict=True)):
            of_class = [
                {
                    "name": name,
                    "images": round(self.class_counts[name] * size / total),
                    **_numbers(one[number]),
                }
                for name, one in zip(self.by_class, classes, strict=True)
                if one
            ]
            rows.append({"images": size, "per_class": of_class, **_numbers(estimate)})
        return rows


def curve(config: Config, display: Display) -> Answer:
    """Fit ridge regression to parts of the training images, and look ahead.

    Raises:
        ConfigError: images may have several classes each.
        FinetuneError: whatever else the user can fix in config or data.
    """
    experiment = prepare(config, display)
    index = experiment.index
    index.task.require_one_class(
        f"finetune curve: the images of {config.data.path} may have several classes each, of which accuracy "
        "says too little."
    )
    if index.metadata is not None:
        display.say("the metadata beside the images is not looked at")
    train, val = (image_features(experiment, split, display.bar) for split in ("train", "val"))
    counts, classes = index.counts("train"), len(index.class_names)
    with display.bar("fits", len(part_sizes(list(counts.values()))), "sizes") as bar:
        sizes = measure((train.features, train.targets), (val.features, val.targets), classes, bar.advance_by)
    more = [factor * len(train.samples) for factor in FACTORS]
    by_class = {
        name: fit_curve([Size(size.images, size.right[:, own]) for size in sizes], more)
        for target, name in enumerate(index.class_names)
        if np.any(own := (val.targets == target).numpy())
    }
    arch = experiment.config.model.arch
    return Answer(config.data.path, arch, counts, len(val.samples), fit_curve(sizes, more), by_class)


def show_answer(answer: Answer, display: Display) -> None:
    """Show the curve, each class, and what more images would bring in a sentence."""
    display.say(
        f"\naccuracy on {counted(answer.judged, 'validation image')} by training images, 80% intervals"
    )
    width = min(display.width, 100)
    display.say(draw_chart(answer.points(), width=width, ascii_only=display.ascii_only))
    display.say("")
    heads = ("class", "images", "accuracy", *(f"with {factor}×" for factor in FACTORS))
    rows = [
        (name, answer.class_counts[name], f"{one.points[-1].accuracy:.0%}", *_ahead(one))
        for name, one in answer.by_class.items()
    ]
    display.table(heads, rows[:_LISTED])
    if len(rows) > _LISTED:
        display.say(f"… and {len(rows) - _LISTED:,} more; --json has them")
    display.say(f"\n{sentence(answer)}")


def sentence(answer: Answer) -> str:
    """Say what more images would bring, or that there is too little to tell."""
    if answer.refusal:
        return f"Too little to tell what more images would bring: {answer.refusal}."
    now, twice, four = answer.whole.points[-1], *answer.whole.forecast
    text = (
        f"After {now.accuracy:.1%}, {_shown(twice)} is expected of twice the images, and {_shown(four)} of "
        "four times as many."
    )
    if four.low <= now.accuracy:
        text += "\nToday's accuracy is within the interval: more images of this kind may bring nothing."
    if four.high - four.low > 0.2:
        text += "\nThe interval is wide: more validation images would narrow it."
    return text


def save_plot(answer: Answer, path: Path) -> None:
    """Draw the curve into a PNG file.

    Raises:
        ResourceError: the file cannot be written.
    """
    write_plot(f"{printable(answer.data)}: ridge regression on {answer.arch}", answer.points(), path)


def _ahead(one: Curve) -> list[str]:
    return [_shown(estimate, 0) for estimate in one.forecast] or ["–"] * len(FACTORS)


def _shown(estimate: Estimate, digits: int = 1) -> str:
    accuracy, low, high = (
        f"{100 * value:.{digits}f}" for value in (estimate.accuracy, estimate.low, estimate.high)
    )
    return f"{accuracy}% ({low} – {high})"


def _numbers(estimate: Estimate) -> dict[str, float]:
    return {
        "accuracy": round(estimate.accuracy, 6),
        "low": round(estimate.low, 6),
        "high": round(estimate.high, 6),
    }
