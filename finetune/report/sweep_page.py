"""The page of a sweep: how it went along, the value by each key, which keys matter, and every trial."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from finetune.report.plot.sweep import SweepPlot, draw_sweep
from finetune.report.templates import load_template
from finetune.text import printable

_MOST_ROWS = 2000


class TrialRow(NamedTuple):
    """A trial, as text."""

    number: int
    status: str
    value: str
    took: str
    params: Sequence[str]
    """one for each key"""
    report: str
    """where the page of its run is, relative to this one; empty if it has none"""
    reason: str


class SweepPageContent(NamedTuple):
    """What the page shows."""

    name: str
    summary: str
    value_name: str
    keys: Sequence[str]
    rows: Sequence[TrialRow]
    """the best first"""
    best: int | None
    importance: Mapping[str, float]
    plot: SweepPlot


def render_sweep_page(content: SweepPageContent) -> str:
    """Render the page; it needs no network, and every name in it is escaped. Links lead to pages of runs."""
    drawn = {narrow: draw_sweep(content.plot, narrow=narrow) for narrow in (False, True)}
    text: str = load_template("sweep.html").render(
        content=content,
        rows=content.rows[:_MOST_ROWS],
        left_out=max(0, len(content.rows) - _MOST_ROWS),
        charts=drawn if content.plot.points else {},
        shown=printable,
    )
    return text.encode("utf-8", "replace").decode()
