"""Small line charts as SVG without a library: as wide as a phone, in the colours and letters of the page.

Each takes less than a millisecond, where matplotlib takes a tenth of a second; and one drawing serves
telephones and screens.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 360, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 28, 38  # around the axes, in pixels
_MOST_POINTS = 300  # of a line: a chart has fewer pixels
_MOST_TICKS = 6
_LETTER = 6.2  # pixels, about


@dataclass(frozen=True)
class Line:
    """Points that belong together."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    style: Literal["hit", "miss", "soft"] = "hit"
    dots: bool = False
    """whether each point is marked, rather than joined with the next"""


@dataclass(frozen=True)
class Chart:
    """What there is to draw; what is not finite is left out."""

    title: str
    x_label: str
    lines: Sequence[Line]
    stages: Sequence[tuple[float, str]] = ()
    """where each stage begins, and its name"""
    logarithmic: bool = False
    percent: bool = False
    """whether both axes are shares, written in percent"""
    y_range: tuple[float, float] | None = None
    """of the axis; None for that of the points, from 0 on unless it is logarithmic"""


def draw_chart(chart: Chart) -> Markup:
    """Draw a chart as an `<svg>` element."""
    points = [(x, y) for line in chart.lines for x, y in _kept(line, chart)]
    if not points:
        return Markup()
    xs = [x for x, _ in points]
    low, high = chart.y_range or _y_range([y for _, y in points], logarithmic=chart.logarithmic)
    left, right = (0.0, 1.0) if chart.percent else (min(xs), max(max(xs), min(xs) + 1e-9))
    scale = math.log10 if chart.logarithmic else float
    bottom, top = scale(low), scale(high)

    def across(x: float) -> float:
        return _LEFT + (x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)

    def down(y: float) -> float:
        share = (scale(y) - bottom) / (top - bottom)
        return _HEIGHT - _BOTTOM - min(max(share, 0.0), 1.0) * (_HEIGHT - _TOP - _BOTTOM)

    ticks = _decades(low, high) if chart.logarithmic else _ticks(low, high)
    parts = [
        *(_horizontal(down(y), _number(y, percent=chart.percent)) for y in ticks),
        *(_vertical_name(across(x), _number(x, percent=chart.percent)) for x in _ticks(left, right)),
        *_stage_marks(chart.stages, across),
        *(_path(line, _kept(line, chart), across, down) for line in chart.lines),
        *_legend(chart.lines),
        Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
            _WIDTH - _RIGHT, _HEIGHT - 5, chart.x_label
        ),
    ]
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        _WIDTH, _HEIGHT, chart.title
    )
    return head + Markup("").join(parts) + Markup("</svg>")


def thinned(values: Sequence[float], most: int = _MOST_POINTS) -> list[tuple[float, float]]:
    """Return (position from 1, mean) of at most that many stretches of a long series."""
    size = max(1, -(-len(values) // most))
    stretches = [values[start : start + size] for start in range(0, len(values), size)]
    return [
        (1 + number * size + (len(own) - 1) / 2, sum(own) / len(own)) for number, own in enumerate(stretches)
    ]


def _kept(line: Line, chart: Chart) -> list[tuple[float, float]]:
    return [
        (x, y)
        for x, y in zip(line.xs, line.ys, strict=True)
        if math.isfinite(x) and math.isfinite(y) and (y > 0 or not chart.logarithmic)
    ]


def _y_range(ys: Sequence[float], *, logarithmic: bool) -> tuple[float, float]:
    """Return the ends of the axis; what explodes leaves the frame, rather than to squash all else."""
    if logarithmic:
        return min(ys) / 1.2, max(ys) * 1.2
    middle = sorted(ys)[len(ys) // 2]
    high = min(max(ys), 5 * middle) if middle > 0 else max(ys)
    return min(0.0, *ys) if len(ys) > 1 else min(0.0, ys[0]), 1.05 * high or 1.0


def _ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / _MOST_TICKS or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * leading for leading in (1, 2, 5, 10) if power * leading >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Return the powers of ten of an axis, every second or third of many; both ends where there is none."""
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    every = max(1, -(-len(powers) // _MOST_TICKS))
    return [10.0**power for power in powers[::every]] if len(powers) > 1 else [low * 1.2, high / 1.2]


def _number(value: float, *, percent: bool) -> str:
    if percent:
        return f"{100 * value:.0f}%"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}".replace("e-0", "e-")


def _horizontal(y: float, name: str) -> Markup:
    line = Markup('<line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, _WIDTH - _RIGHT, y, y)
    words = Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(_LEFT - 6, y + 4, name)
    return line + words


def _vertical_name(x: float, name: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
        x, _HEIGHT - _BOTTOM + 15, name
    )


def _stage_marks(stages: Sequence[tuple[float, str]], across: Callable[[float], float]) -> list[Markup]:
    """Draw a dashed line where a stage begins, and its name where there is room."""
    marks, free = [], 0.0
    for x, name in stages:
        place = across(x)
        marks.append(
            Markup('<line class="stage" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
                place, place, _TOP, _HEIGHT - _BOTTOM
            )
        )
        short = name if len(name) <= 14 else f"{name[:13]}…"
        if place >= free and place + _LETTER * len(short) < _WIDTH:
            marks.append(
                Markup('<text class="stage" x="{:.1f}" y="{}">{}</text>').format(place + 3, _TOP - 2, short)
            )
            free = place + _LETTER * len(short) + 6
    return marks


def _path(
    line: Line,
    points: Sequence[tuple[float, float]],
    across: Callable[[float], float],
    down: Callable[[float], float],
) -> Markup:
    placed = [(across(x), down(y)) for x, y in points]
    if line.dots or len(placed) == 1:
        dots = [
            Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(line.style, x, y)
            for x, y in placed
        ]
        return Markup("").join(dots)
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    return Markup('<polyline class="{}" points="{}"/>').format(line.style, way)


def _legend(lines: Sequence[Line]) -> list[Markup]:
    parts, x = [], float(_LEFT)
    for line in lines:
        if not line.label:
            continue
        parts.append(
            Markup('<rect class="{}" x="{:.0f}" y="8" width="12" height="5" rx="2"/>').format(line.style, x)
        )
        parts.append(Markup('<text x="{:.0f}" y="14">{}</text>').format(x + 16, escape(line.label)))
        x += 28 + _LETTER * len(line.label)
    return parts
