"""The story of `finetune optimizers --race`: all from one start, at a saddle and in a ravine."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.choices import OptimizerName
from finetune.commands.optimizers.landscapes import (
    RATES,
    RAVINE,
    SADDLE,
    STAY,
    Descent,
    Landscape,
    best_descent,
)
from finetune.display import Display
from finetune.errors import ConfigError
from finetune.machine.files import write_bytes
from finetune.optim.update_rules import UPDATE_RULES
from finetune.progress import NewBar, no_bar
from finetune.report.plot import Family, Landmark, Panel, PathPlot, Trail, draw_paths
from finetune.text import counted

LANDSCAPES = (SADDLE, RAVINE)
MOST_STEPS = 10_000

FAMILIES: Mapping[Family, tuple[OptimizerName, ...]] = {
    "gradient": ("sgd",),
    "mean": ("momentum", "nesterov"),
    "scale": ("adagrad", "rmsprop", "adadelta"),
    "both": ("adam", "nadam", "radam", "ranger", "lamb"),
    "sign": ("lion",),
}
"""Who uses gradients in which way; the picture gives each family a hue. Without decay, adamw is adam."""

_RATES = (
    f"the best for each of {len(RATES)} constant ones, {RATES[0]:g} – {RATES[-1]:g}, four per decade:",
    "it takes the fewest steps, and never climbs above the start",
    "other settings are the defaults; weights are not decayed",
    f"to stay is to stay for {STAY} more steps",
)


@dataclass(frozen=True)
class Race:
    """The descents of all optimizers on both landscapes."""

    steps: int
    """Steps that each could take."""
    descents: Mapping[str, Mapping[OptimizerName, Descent]]
    """By the names of landscape and optimizer."""

    def to_dict(self) -> dict[str, Any]:
        """Return the race as `optimizers --race --json` documents it."""
        functions = [
            {
                "name": landscape.name,
                "formula": landscape.formula,
                "start": landscape.start,
                "floors": landscape.floors,
                "below": landscape.line,
                "paths": [asdict(descent) for descent in self.descents[landscape.name].values()],
            }
            for landscape in LANDSCAPES
        ]
        return {"steps": self.steps, "rates": RATES, "functions": functions}


def race(steps: int, new_bar: NewBar = no_bar) -> Race:
    """Let every optimizer go down both landscapes, each at its own best rate.

    Raises:
        ConfigError: no such number of steps.
    """
    if not 1 <= steps <= MOST_STEPS:
        raise ConfigError(f"--steps {steps}: expected a whole number from 1 to {MOST_STEPS}.")
    descents: dict[str, dict[OptimizerName, Descent]] = {landscape.name: {} for landscape in LANDSCAPES}
    with new_bar("race", len(LANDSCAPES) * len(UPDATE_RULES), unit="paths") as bar:
        for landscape in LANDSCAPES:
            for name in UPDATE_RULES:
                descents[landscape.name][name] = best_descent(landscape, name, steps=steps)
                bar.advance_by(1)
    return Race(steps, descents)


def show_race(result: Race, display: Display) -> None:
    """Show the functions, how rates are chosen, and the steps of all, those first off the saddle first."""
    words = {land.name: (land.formula, land.start_text, land.goal) for land in LANDSCAPES} | {"rates": _RATES}
    rows = [("" if line else name, text) for name, texts in words.items() for line, text in enumerate(texts)]
    display.table(("race", f"{counted(result.steps, 'step')} at most"), rows)
    display.say("")
    names = [descent.optimizer for descent in _ranked(result, SADDLE)]
    results = [(name, *_cells(result, SADDLE, name), *_cells(result, RAVINE, name)) for name in names]
    display.table(("optimizer", "steps off the saddle", "rate", "to the minimum", "rate"), results)


def write_plot(result: Race, path: Path) -> None:
    """Write the paths as a PNG file.

    Raises:
        ResourceError: the file cannot be written.
    """
    saddle = _panel(
        SADDLE,
        result,
        title="Steps to leave a saddle",
        frame=(-1.25, 1.25, -1.0, 1.11),
        every=5,
        landmarks=[Landmark("saddle", (0, 0), "left"), Landmark("minimum", SADDLE.floors[1], "left")],
    )
    ravine = _panel(
        RAVINE, result, title="Steps to the minimum of a ravine", frame=(-1.7, 1.5, -0.6, 1.5), every=50
    )
    title = f"{len(UPDATE_RULES)} optimizers from one start, each at its own best rate"
    write_bytes(path, draw_paths(PathPlot(title, (saddle, ravine))))


def _panel(
    landscape: Landscape,
    result: Race,
    *,
    title: str,
    frame: tuple[float, float, float, float],
    every: int,
    landmarks: Sequence[Landmark] = (),
) -> Panel:
    start = Landmark("start", landscape.start, "left")
    minimum = Landmark("minimum", landscape.floors[0], "right")
    return Panel(
        f"{title}, a marker every {every}",
        (landscape.formula, f"{landscape.goal} (yellow)"),
        landscape.value,
        frame,
        landscape.line,
        [start, minimum, *landmarks],
        every,
        _trails(_ranked(result, landscape), result.steps),
    )


def _trails(descents: Sequence[Descent], steps: int) -> list[Trail]:
    """Return the paths; those who take the same share one: without decay, adamw is adam."""
    sharing: dict[tuple[tuple[float, float], ...], list[Descent]] = {}
    for descent in descents:
        sharing.setdefault(tuple(descent.points), []).append(descent)
    trails = []
    for points, same in sharing.items():
        names = ", ".join(descent.optimizer for descent in same)
        fared = f"not in {steps}" if same[0].steps is None else str(same[0].steps)
        family, member = _kin(same[0].optimizer)
        trails.append(Trail(f"{names}: {fared}", family, member, points))
    return trails


def _kin(name: OptimizerName) -> tuple[Family, int]:
    """Return the family of an optimizer, and which of its members it is."""
    return next((family, names.index(name)) for family, names in FAMILIES.items() if name in names)


def _ranked(result: Race, landscape: Landscape) -> list[Descent]:
    """Return the descents, the fastest first; those that did not get there last."""
    descents = result.descents[landscape.name].values()
    return sorted(descents, key=lambda descent: descent.steps or math.inf)


def _cells(result: Race, landscape: Landscape, name: OptimizerName) -> tuple[int | str, str]:
    descent = result.descents[landscape.name][name]
    if descent.steps is None:
        return f"not in {result.steps}", "–"
    return descent.steps, f"{descent.lr:g}"
