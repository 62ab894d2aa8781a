"""Functions of two variables on which optimizers show their character, and the way that each takes there."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from finetune.choices import OptimizerName
from finetune.optim.build import build_optimizer
from finetune.optim.update_rules import UPDATE_RULES

Point = tuple[float, float]

RATES = tuple(float(f"{10 ** (exponent / 4):.2g}") for exponent in range(-12, 9))
"""Learning rates to choose from: four per decade, 0.001 – 100."""

STAY = 50
"""Steps for which an optimizer must stay below the line before we believe it: some only pass."""


@dataclass(frozen=True)
class Landscape:
    """A function to go down, from where, and how far."""

    name: str
    formula: str
    start: Point
    start_text: str
    """The start in words."""
    floors: tuple[Point, ...]
    """Where the function is lowest."""
    line: float
    """The goal: to be below this value, and to stay there."""
    goal: str
    """The goal in words."""
    value: Callable[[float, float], float]
    gradient: Callable[[float, float], Point]


@dataclass(frozen=True)
class Descent:
    """The way of one optimizer at one constant rate."""

    optimizer: OptimizerName
    lr: float
    points: Sequence[Point]
    """Where it was, from the start on, up to the goal if it got there."""
    steps: int | None
    """Steps after which it was below the line for good; None if it was not."""


def best_descent(
    landscape: Landscape, name: OptimizerName, *, steps: int, rates: Sequence[float] = RATES
) -> Descent:
    """Let an optimizer go down in float64 at all rates side by side; give the one that is there first.

    Rates are constant, weights are not decayed, all else is the optimizer's default. It is there after the
    first step from which on it stays below the line for `STAY` more steps, if that is not after `steps`. A
    rate at which it climbs above its start is out: such leaps land well by luck, if they do. Of equals the
    smallest rate is given; if none gets there, the one that ends lowest.
    """
    walks = [_Walk(landscape, lr) for lr in rates]
    groups = [{"params": [walk.weights], "lr": walk.lr, "weight_decay": 0.0} for walk in walks]
    optimizer = build_optimizer(groups, name=name, decay=UPDATE_RULES[name].decays[0])
    top, running = walks[0].value, walks
    for step in range(1, steps + STAY + 1):
        for walk in running:
            walk.take_gradient()
        optimizer.step()
        # Who is out gets no more gradients, and so stays where it is.
        optimizer.zero_grad()
        for walk in running:
            walk.note(step)
        running = [walk for walk in running if walk.value <= top]
        first = min(running, key=lambda walk: walk.arrival, default=None)
        if first is None or first.arrival > steps:
            break
        if step == first.arrival + STAY:
            return Descent(name, first.lr, first.points[: first.arrival + 1], first.arrival)
    lowest = min(running or walks, key=lambda walk: walk.value)
    return Descent(name, lowest.lr, lowest.points, None)


class _Walk:
    """Where an optimizer is at one of its rates, and was."""

    def __init__(self, landscape: Landscape, lr: float) -> None:
        self._landscape, self.lr = landscape, lr
        # A matrix, because lamb takes those as it takes the weights of a network, and vectors otherwise.
        self.weights = torch.tensor([landscape.start], dtype=torch.float64, requires_grad=True)
        self.points = [landscape.start]
        self.value = landscape.value(*landscape.start)
        self.arrival = 1
        """The first step after which it was below the line ever since; one in the future if it is above."""

    def take_gradient(self) -> None:
        gradient = self._landscape.gradient(*self.points[-1])
        self.weights.grad = torch.tensor([gradient], dtype=torch.float64)

    def note(self, step: int) -> None:
        """Note where a step led."""
        ((x, y),) = self.weights.tolist()
        self.points.append((x, y))
        self.value = self._landscape.value(x, y)
        if self.value > self._landscape.line:
            self.arrival = step + 1


_COS, _SIN = math.cos(math.pi / 6), math.sin(math.pi / 6)


def _turned(x: float, y: float) -> Point:
    """Return (u, v): the coordinates along axes that are turned by 30° against those of x and y."""
    return _COS * x + _SIN * y, _COS * y - _SIN * x


def _turned_back(u: float, v: float) -> Point:
    return _COS * u - _SIN * v, _SIN * u + _COS * v


def _saddle(x: float, y: float) -> float:
    u, v = _turned(x, y)
    return v * v / 2 - u * u / 40 + u * u * u * u / 80


def _saddle_gradient(x: float, y: float) -> Point:
    u, v = _turned(x, y)
    return _turned_back((u * u * u - u) / 20, v)


# The axes are turned because an optimizer that scales each coordinate by itself would otherwise be given the
# way out: the coordinate with the tiny gradient would be that way, and nothing else.
SADDLE = Landscape(
    name="saddle",
    formula="f = v²/2 − u²/40 + u⁴/80, where u and v are x and y turned by 30°",
    start=_turned_back(1e-3, 0.8),
    start_text="from v = 0.8 and u = 0.001: almost exactly on the ridge u = 0, which leads to the saddle",
    floors=(_turned_back(1, 0), _turned_back(-1, 0)),
    line=-1 / 160,
    goal="left when f stays below −1/160, half as deep as the minima at u = ±1",
    value=_saddle,
    gradient=_saddle_gradient,
)
"""A saddle at 0 between two minima: the way out is 20 times less curved than the slope that leads in."""


def _ravine(x: float, y: float) -> float:
    return (y - x * x) * (y - x * x) + (1 - x) * (1 - x) / 20


def _ravine_gradient(x: float, y: float) -> Point:
    return -4 * x * (y - x * x) - (1 - x) / 10, 2 * (y - x * x)


RAVINE = Landscape(
    name="ravine",
    formula="f = (y − x²)² + (1 − x)²/20",
    start=(-1.2, 1.0),
    start_text="from x = −1.2 and y = 1: on the far side of the curve from the minimum",
    floors=((1.0, 1.0),),
    line=1 / 2000,
    goal="minimum reached when f stays below 1/2000, about a tenth from x = y = 1",
    value=_ravine,
    gradient=_ravine_gradient,
)
"""Rosenbrock's function (1960) and his start, with 20 for his 100, divided by that: gradients are about 1."""
