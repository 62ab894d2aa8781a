"""The picture of the paths of optimizers."""

import io
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from PIL import Image

from finetune.report.plot import Landmark, Panel, PathPlot, Trail, draw_paths

TRAILS = (
    Trail("sgd: 2", "gradient", 0, [(0.9, 0.5), (0.5, 0.2), (0.1, 0.1)]),
    Trail("adam: 1", "both", 0, [(0.9, 0.5), (0.0, 0.0)]),
)
PANEL = Panel(
    title="Steps to the floor of a bowl",
    subtitles=("f = x² + y²", "reached below 0.1"),
    value=lambda x, y: x * x + y * y,
    frame=(-1.0, 1.0, -1.0, 1.0),
    line=0.1,
    marks=[Landmark("start", (0.9, 0.5), "left"), Landmark("floor", (0.0, 0.0), "right")],
    every=1,
    trails=TRAILS,
)


def draw(left=PANEL, right=PANEL, title="two bowls"):
    return draw_paths(PathPlot(title, (left, right)))


def count(png, color, area=(0, 0, 1600, 1000)):
    """Count the pixels of a colour in an area (left, top, right, bottom)."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB").crop(area)).astype(int)
    return int((np.abs(pixels - color).sum(axis=2) < 12).sum())


RED, GOLD = (0xD3, 0x34, 0x0F), (0xFD, 0xE9, 0xA6)
LEFT, RIGHT = (0, 200, 770, 820), (830, 200, 1600, 820)


def test_the_picture_has_its_size_and_holds_no_trace_of_the_software():
    image = Image.open(io.BytesIO(draw()))
    image.load()
    assert (image.format, image.size) == ("PNG", (1600, 1000))
    assert set(image.info) <= {"dpi"}


def test_equal_plots_give_equal_pictures_whatever_the_user_sets():
    plain = draw()
    with matplotlib.rc_context({"lines.linewidth": 9, "figure.facecolor": "black", "savefig.dpi": 30}):
        assert draw() == plain


def test_a_trail_is_drawn_in_its_own_panel_only():
    png = draw(right=replace(PANEL, trails=TRAILS[:1]))
    assert count(png, RED, LEFT) > 200
    assert count(png, RED, RIGHT) == 0


def test_members_of_a_family_differ_in_colour_and_keep_it_in_every_panel():
    other = replace(TRAILS[1], member=1)
    png = draw(left=replace(PANEL, trails=[TRAILS[1], other]), right=replace(PANEL, trails=[other]))
    assert count(png, RED, RIGHT) == 0
    orange = (0xF0, 0x8A, 0x10)
    assert count(png, orange, LEFT) > 200
    assert count(png, orange, RIGHT) > 200


def test_the_region_to_get_to_is_shown():
    bowl = replace(PANEL, trails=TRAILS[:1], marks=[])
    small, large = count(draw(left=bowl), GOLD, LEFT), count(draw(left=replace(bowl, line=0.4)), GOLD, LEFT)
    assert small > 10_000
    # The area of a disc of radius √line; contours and the trail cover some of it.
    assert large / small == pytest.approx(4, rel=0.1)


def test_where_a_mark_stands_is_left_free_of_trails():
    marked, bare = draw(), draw(left=replace(PANEL, marks=[]))
    assert count(marked, RED, LEFT) < count(bare, RED, LEFT)


def test_dollars_are_no_formulas_and_long_titles_are_cut():
    text = "$\\frac{$"
    panel = replace(PANEL, title=text, subtitles=(text, "█" * 300), trails=[replace(TRAILS[0], label=text)])
    png = draw(left=panel, title=text)
    ink, grey = (0x1C, 0x27, 0x33), (0x66, 0x72, 0x7F)
    assert count(png, ink, (0, 105, 770, 140)) > 20
    assert count(png, grey, (0, 160, 770, 190)) > 20
    assert count(png, grey, (775, 160, 840, 190)) == 0


def test_a_trail_far_outside_is_cut_at_the_frame():
    far = replace(TRAILS[1], points=[(0.9, 0.5), (1e6, -1e9), (0.0, 0.0)])
    png = draw(left=replace(PANEL, trails=[far]), right=replace(PANEL, trails=[]))
    assert count(png, RED, RIGHT) == 0
