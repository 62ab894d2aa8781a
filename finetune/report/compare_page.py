"""The page of a comparison of runs: scores, curves, what differs, and images that one alone has right."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from finetune.report.plot.runs import RunCurve, draw_runs
from finetune.report.templates import load_template
from finetune.report.thumbnails import encoded
from finetune.text import printable


class ComparedRow(NamedTuple):
    """A run, by the best model on its validation images."""

    name: str
    run_dir: str
    accuracy: float
    map: float
    loss: float
    epochs: int


class Picture(NamedTuple):
    """An image that one model alone has right."""

    name: str
    answers: Sequence[tuple[str, float, bool]]
    """of both models, with the calibrated probability of each, 0–1, and whether it is right"""
    thumbnail: Image.Image


class PictureGroup(NamedTuple):
    """Images that the same model alone has right."""

    title: str
    number: int
    """of all of them"""
    pictures: Sequence[Picture]
    """those that are shown"""


class RunPair(NamedTuple):
    """A run beside the first one."""

    first: str
    this: str
    config: Sequence[tuple[str, str, str]]
    """key, value of the first, value of this one"""
    data: Sequence[str]
    verdict: str
    """whether one is better by more than chance, as a sentence"""
    groups: Sequence[PictureGroup]


def compare_page(
    rows: Sequence[ComparedRow], curves: Sequence[RunCurve], pairs: Sequence[RunPair], *, score_name: str
) -> str:
    """Render the page; it needs no other file and no network, and every name in it is escaped."""
    text: str = load_template("compare.html").render(
        rows=rows,
        pairs=pairs,
        charts={narrow: draw_runs(curves, score_name, narrow=narrow) for narrow in (False, True)},
        shown=printable,
        thumbnail=encoded,
    )
    return text.encode("utf-8", "replace").decode()  # names of files may hold bytes that are no text
