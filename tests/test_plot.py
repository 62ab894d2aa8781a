import hashlib
import io
import math
import subprocess
import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len

from finetune.display import Display
from finetune.report.plot import CurvePlot, Marker, RacePoint, draw_png, draw_text
from finetune.report.plot.lr_curve_image import _label_places

MARKERS = (
    Marker("valley", 2e-3, picked=True),
    Marker("steepest", 1.9e-3),
    Marker("minimum / 10", 1e-2),
    Marker("divergence", 2.0),
)


def falling_then_exploding(last=40.0, *, title="range test", markers=MARKERS):
    """Draw the usual curve over 1e-6 … 1e+1: flat at 2.5, down to 0.7 at 0.3, then up to `last`."""
    lrs = np.geomspace(1e-6, 10, 71)
    losses = np.interp(np.log10(lrs), [-6, -4, -0.5, 0.3, 1], [2.5, 2.5, 0.7, 2.5, last])
    wiggle = 0.1 * np.cos(np.arange(71) * 2)
    return CurvePlot(title, lrs.tolist(), (losses + wiggle).tolist(), losses.tolist(), markers)


def curve(lrs, losses, markers=()):
    return CurvePlot("title", list(lrs), list(losses), list(losses), markers)


def body(text):
    """Return what stands right of the y-axis, line by line, from the top."""
    return [line[line.index(axis) + 1 :] for line in text.splitlines() for axis in "│┤" if axis in line]


def is_braille(character):
    return "\u2800" < character <= "\u28ff"


def rows_of_curve(text):
    """Return for every column the rows that the curve passes."""
    rows = body(text)
    width = max(len(row) for row in rows)
    return [[y for y, row in enumerate(rows) if x < len(row) and is_braille(row[x])] for x in range(width)]


def coloured(png, color):
    """Return the (rows, columns) of the pixels of a colour above the legend, which stands at the bottom."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return np.nonzero(np.abs(pixels[:500] - color).sum(axis=2) < 12)


def blue(png):
    """Return the (rows, columns) of the pixels that the smoothed curve covers."""
    return coloured(png, (0x1F, 0x5F, 0xAE))


def test_the_picture_has_its_size_and_holds_no_trace_of_the_software():
    image = Image.open(io.BytesIO(draw_png(falling_then_exploding())))
    image.load()
    assert (image.format, image.size) == ("PNG", (1000, 600))
    assert set(image.info) <= {"dpi"}


def test_the_picture_is_the_same_in_another_process_that_never_loads_pyplot():
    make = "CurvePlot('t', [1e-3, 1e-2, 1e-1], [3.0, 2.0, 9.0], [3.0, 2.5, 4.0], [Marker('valley', 4e-3)])"
    code = f"""if True:
        import hashlib, sys
        from finetune.report.plot import CurvePlot, Marker, draw_png, draw_text
        plot = {make}
        draw_text(plot, width=80)
        assert "matplotlib" not in sys.modules, "text needs no matplotlib"
        print(hashlib.sha256(draw_png(plot)).hexdigest())
        assert "matplotlib.pyplot" not in sys.modules
    """
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    plot = CurvePlot("t", [1e-3, 1e-2, 1e-1], [3.0, 2.0, 9.0], [3.0, 2.5, 4.0], [Marker("valley", 4e-3)])
    assert there.strip() == hashlib.sha256(draw_png(plot)).hexdigest()


def test_the_settings_of_the_user_neither_change_the_picture_nor_are_changed():
    plain = draw_png(falling_then_exploding())
    with matplotlib.rc_context({"lines.linewidth": 9, "figure.facecolor": "black", "savefig.dpi": 30}):
        before = dict(matplotlib.rcParams)
        assert draw_png(falling_then_exploding()) == plain
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("last", [40.0, 1e6, 1e30, 1e300])
def test_an_explosion_does_not_squash_the_fall_in_the_picture(last):
    rows, columns = blue(draw_png(falling_then_exploding(last, markers=())))
    start = rows[columns < 200].mean()
    bottom = rows.max()
    assert bottom - start > 200
    assert rows.min() < start - 50  # and the rise is seen to begin


def test_every_marker_changes_the_picture():
    pictures = {draw_png(falling_then_exploding(markers=MARKERS[:n])) for n in range(5)}
    pictures.add(draw_png(falling_then_exploding(markers=(Marker("valley", 2e-3), *MARKERS[1:]))))
    assert len(pictures) == 6


def test_the_picked_rate_is_a_line_over_the_whole_height_at_its_place():
    png = draw_png(falling_then_exploding(markers=[Marker("valley", 10**-2.5, picked=True)]))
    _, columns = coloured(png, (0xD9, 0x60, 0x0A))
    line = np.flatnonzero(np.bincount(columns) > 350)
    # The axes reach from 76 to 976, and -2.5 is the middle of -6 … 1.
    assert line.tolist()
    assert line.mean() == pytest.approx(526, abs=1.5)
    assert coloured(png, (0xB3, 0x20, 0x2C))[0].size == 0  # red is for divergence


def test_the_race_is_shown_where_it_ended():
    race = [RacePoint(1e-4, 2.0, 0.05), RacePoint(10**-2.5, 0.9, 0.02), RacePoint(1.0, 1e6, 0.0)]
    plain = falling_then_exploding(markers=())
    png = draw_png(replace(plain, race=race))
    rows, columns = coloured(png, (0xD9, 0x60, 0x0A))
    assert coloured(draw_png(plain), (0xD9, 0x60, 0x0A))[0].size == 0
    places = [columns[(columns > x - 30) & (columns < x + 30)].mean() for x in (341, 526, 835)]
    assert places == pytest.approx([341, 526, 835], abs=4)  # of 1e-4, 10^-2.5 and 1
    heights = [rows[(columns > x - 30) & (columns < x + 30)].mean() for x in (341, 526, 835)]
    assert heights[2] < heights[0] < heights[1]  # the one that exploded stands at the upper edge


def label_spans(xs, widths, places):
    ends = [(x, x + side * width) for x, width, (_, side) in zip(xs, widths, places, strict=True)]
    return [sorted(pair) for pair in ends]


@given(st.lists(st.tuples(st.floats(0, 900), st.floats(20, 300)), max_size=9))
def test_no_label_covers_another(markers):
    xs, widths = [x for x, _ in markers], [width for _, width in markers]
    places = _label_places(xs, widths)
    spans = label_spans(xs, widths, places)
    for (row, _), (low, high) in zip(places, spans, strict=True):
        beside = [span for place, span in zip(places, spans, strict=True) if place[0] == row]
        assert sum(other[0] <= high and low <= other[1] for other in beside) == 1  # itself


@given(st.lists(st.tuples(st.floats(0, 900), st.floats(20, 120)), max_size=5))
def test_labels_of_usual_length_stay_in_the_frame_and_cover_no_line(markers):
    xs, widths = [x for x, _ in markers], [width for _, width in markers]
    places = _label_places(xs, widths)
    for (row, _), (low, high) in zip(places, label_spans(xs, widths, places), strict=True):
        assert low >= 0
        assert high <= 900
        higher = [x for x, place in zip(xs, places, strict=True) if place[0] > row]
        assert not [x for x in higher if low < x < high]


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_longer_than_the_width(width, ascii_only):
    markers = (*MARKERS, Marker("猫の学習率" * 12, 3e-3), Marker("a rate with a very long name " * 4, 9.0))
    plot = falling_then_exploding(title="学習率 " * 30 + "x" * 300, markers=markers)
    lines = draw_text(plot, width=width, ascii_only=ascii_only).splitlines()
    assert max(cell_len(line) for line in lines) <= width
    assert max(cell_len(line) for line in lines) > width - 3
    assert not any(line.endswith(" ") for line in lines)


@pytest.mark.parametrize("height", [4, 12, 30])
def test_the_plot_has_the_rows_that_were_asked_for(height):
    assert len(body(draw_text(falling_then_exploding(), width=80, height=height))) == height


@pytest.mark.parametrize("width", [40, 61, 80, 200])
@pytest.mark.parametrize("decade", [-5, -3, -2])
def test_the_minimum_stands_in_its_column_and_so_do_its_tick_and_its_mark(width, decade):
    lrs = np.geomspace(1e-6, 1, 61)
    losses = 1 + np.abs(np.log10(lrs) - decade)
    text = draw_text(curve(lrs, losses, [Marker("minimum", 10.0**decade)]), width=width)
    axis = next(line for line in text.splitlines() if "└" in line)
    ticks, marks = text.splitlines()[text.splitlines().index(axis) + 1 :][:2]
    left = axis.index("└") + 1
    columns = len(axis) - left
    expected = (decade + 6) / 6 * (columns - 1)
    lowest = [x for x, rows in enumerate(rows_of_curve(text)) if 11 in rows]
    assert np.mean(lowest) == pytest.approx(expected, abs=1.5)
    assert abs(marks.index("m") - left - expected) <= 1
    assert axis[marks.index("m")] == "┬"
    if f"1e{decade}" in ticks:  # on narrow terminals every second has a name
        assert abs(ticks.index(f"1e{decade}") + 1.5 - marks.index("m")) <= 1


def test_a_dip_of_one_point_among_thousands_is_still_drawn():
    lrs = np.geomspace(1e-6, 1, 5001)
    losses = np.full(5001, 2.0)
    losses[2500] = 1.0
    columns = rows_of_curve(draw_text(curve(lrs, losses), width=47))
    deep = [x for x, rows in enumerate(columns) if 11 in rows]
    assert deep
    assert all(abs(x - (len(columns) - 1) / 2) <= 1 for x in deep)


def test_the_axes_name_the_losses_and_the_decades():
    lines = draw_text(falling_then_exploding(1.0), width=80).splitlines()
    rows = [line for line in lines if "│" in line or "┤" in line]
    assert (rows[0].split()[0], rows[-1].split()[0]) == ("2.5", "0.7")
    ticks = next(line for line in lines if line.split()[:1] == ["1e-6"])
    assert ticks.split() == ["1e-6", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1", "1e+0", "1e+1"]


def test_ends_that_rounding_moved_off_their_decades_keep_their_ticks():
    text = draw_text(curve([1.0000000001e-6, 1e-3, 0.9999999999], [3.0, 2.0, 1.0]), width=80)
    assert "1e-6" in text
    assert "1e+0" in text


def test_a_range_of_less_than_a_decade_has_ticks_too():
    losses = [3.0, 2.0, 1.0]
    assert "2e-4" in draw_text(curve([1.5e-4, 3e-4, 6e-4], losses), width=60)
    narrow = draw_text(curve([3.1e-4, 3.2e-4, 3.3e-4], losses), width=60)
    assert "0.00031" in narrow
    assert "0.00033" in narrow


@pytest.mark.parametrize("last", [40.0, 1e6, 1e30, 1e300])
def test_an_explosion_does_not_squash_the_fall_in_the_text(last):
    text = draw_text(falling_then_exploding(last, markers=()), width=80)
    columns = rows_of_curve(text)
    flat, deep = columns[2][0], max(max(rows) for rows in columns if rows)
    assert deep == 11
    assert deep - flat >= 6
    assert 0 in [rows[0] for rows in columns if rows]  # it leaves at the top
    assert f"the curve goes up to {last:.3g}" in text


def test_a_curve_within_the_frame_is_not_said_to_leave_it():
    text = draw_text(falling_then_exploding(2.6), width=80)
    assert "goes up" not in text


@pytest.mark.parametrize("loss", [0.0, 2.3, 1e30])
def test_constant_losses_are_a_level_line(loss):
    plot = curve(np.geomspace(1e-6, 1, 50), [loss * (1 + 1e-12 * math.sin(i)) for i in range(50)])
    columns = rows_of_curve(draw_text(plot, width=80))
    assert len(columns) >= 70
    assert all(rows == columns[0] and len(rows) == 1 for rows in columns)
    rows, _ = blue(draw_png(plot))
    assert rows.max() - rows.min() < 6


def test_noise_of_a_hundredth_does_not_look_like_a_slope():
    losses = 2.3 + 0.01 * np.cos(np.arange(50))
    columns = rows_of_curve(draw_text(curve(np.geomspace(1e-6, 1, 50), losses), width=80))
    assert max(max(rows) for rows in columns) - min(min(rows) for rows in columns) <= 3


@pytest.mark.parametrize("losses", [[1.0, 1e9], [5.0, 1.0], [0.0, 0.0], [-1.0, -2.0]])
def test_two_points_are_a_curve(losses):
    assert any(rows_of_curve(draw_text(curve([1e-3, 1e-1], losses), width=60)))
    assert draw_png(curve([1e-3, 1e-1], losses))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_rate_is_named_with_its_mark(width):
    lines = draw_text(falling_then_exploding(), width=width).splitlines()
    legend = "   ".join(lines[-5:])
    for entry in ("▲ valley 0.002 (picked)", "s steepest 0.0019", "m minimum / 10 0.01", "d divergence 2"):
        assert entry in legend


def test_marks_in_one_column_stand_below_each_other():
    markers = [Marker(label, 1e-3) for label in ("valley", "velocity", "vvv", "猫")]
    markers.append(Marker("best", 1e-3, picked=True))
    lines = draw_text(falling_then_exploding(markers=markers), width=80).splitlines()
    start = next(i for i, line in enumerate(lines) if "└" in line) + 2
    stack = [line.strip() for line in lines[start : start + 5]]
    assert stack == ["v", "e", "a", "b", "▲"]
    assert len({line.index(mark) for line, mark in zip(lines[start:], stack, strict=False)}) == 1


def test_the_picked_rate_has_a_line_up_to_the_curve():
    text = draw_text(falling_then_exploding(), width=80)
    marks = next(line for line in text.splitlines() if "▲" in line)
    column = marks.index("▲")
    rows = [line for line in text.splitlines() if "│" in line or "┤" in line]
    assert all(row[column] == "┊" or is_braille(row[column]) for row in rows)
    assert text.count("┊") >= 10


def test_rates_outside_the_curve_widen_the_axis():
    plot = curve(np.geomspace(1e-3, 1, 20), np.linspace(2, 1, 20), [Marker("far", 1e-5)])
    text = draw_text(plot, width=80)
    assert "1e-5" in text
    assert not any(rows_of_curve(text)[:20])
    assert draw_png(plot)


NASTY = "[bold]x[/] \x1b[31m\r\n\u202e $\\frac{ é"


def test_names_are_plain_printable_text():
    plot = falling_then_exploding(title=NASTY, markers=[Marker(NASTY, 1e-3)])
    text = draw_text(plot, width=200)
    escaped = r"[bold]x[/] \x1b[31m\r\n\u202e $\frac{ é"
    lines = text.splitlines()
    assert lines[0] == escaped
    assert escaped in lines[-1] + lines[-2]
    assert all(character.isprintable() for line in lines for character in line)
    log = io.StringIO()
    Display(log).say(text)
    assert log.getvalue() == text + "\n"


def test_names_that_no_font_has_can_be_drawn():
    title = NASTY + "猫" * 200 + "\ud800$a_b$"
    assert draw_png(falling_then_exploding(title=title, markers=[Marker(title, 1e-3), Marker("", 1e-6)]))


def test_dollars_in_names_are_no_formulas():
    bad_formula = "$\\frac{$"
    assert draw_png(falling_then_exploding(title=bad_formula, markers=[Marker(bad_formula, 1e-3)]))


def test_ascii_is_enough_for_a_stream_that_has_nothing_else():
    plot = falling_then_exploding(title="café – 猫", markers=[*MARKERS, Marker("größte", 1e-4)])
    text = draw_text(plot, width=80, ascii_only=True)
    text.encode("ascii")
    assert r"caf\xe9 \u2013 \u732b" in text
    assert "^ valley 0.002 (picked)" in text
    rows = [line.partition("|")[2] for line in text.splitlines() if "|" in line]
    assert len(rows) == 12
    assert all("*" in row for row in rows)


@pytest.mark.parametrize(
    ("lrs", "losses", "smoothed", "problem"),
    [
        ([1e-3], [1.0], [1.0], "at least 2 points"),
        ([], [], [], "at least 2 points"),
        ([1e-3, 1e-2], [1.0, 2.0], [1.0], "2 rates, 2 losses and 1 smoothed"),
        ([1e-3, 1e-2], [1.0], [1.0, 2.0], "2 rates, 1 losses"),
        ([0.0, 1e-2], [1.0, 2.0], [1.0, 2.0], "above 0"),
        ([1e-2, 1e-2], [1.0, 2.0], [1.0, 2.0], "rise"),
    ],
)
def test_what_is_no_curve_is_refused(lrs, losses, smoothed, problem):
    with pytest.raises(ValueError, match=problem):
        CurvePlot("title", lrs, losses, smoothed, [])


def test_a_marker_without_a_place_on_the_axis_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        falling_then_exploding(markers=[Marker("valley", 0.0)])
