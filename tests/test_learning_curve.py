"""Learning curves: parts that keep the shares of classes, laws that go on, and intervals that are honest."""

import numpy as np
import pytest
import torch

from finetune.analysis.learning_curve import (
    LEAST_SIZES,
    Estimate,
    Size,
    draw_part,
    fit_curve,
    measure,
    part_sizes,
)
from finetune.report.learning_curve import CurvePoint, draw_chart, write_plot


def made_up(n, seed, classes=3, noise=3.0):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % classes
    centres = 2 * torch.randn(classes, 30, generator=torch.Generator().manual_seed(99))
    return centres[targets] + noise * torch.randn(n, 30, generator=generator), targets


def answers(accuracy, images, *, draws=10, judged=400, seed=0):
    """Return a size whose fits are right as often as `accuracy`, always on the same images."""
    right = np.zeros((draws, judged), bool)
    right[:, : round(accuracy * judged)] = True
    return Size(images, right)


def test_sizes_double_up_to_all_images_and_begin_with_two_of_a_class():
    assert part_sizes([100, 100, 100]) == [9, 18, 37, 75, 150, 300]
    assert part_sizes([3, 3]) == [6]


def test_parts_keep_the_shares_of_the_classes_and_leave_none_out():
    targets = torch.tensor([0] * 60 + [1] * 30 + [2] * 2)
    random = np.random.default_rng(0)
    for _ in range(10):
        part = draw_part(targets, 23, random)
        assert len(set(part.tolist())) == len(part)
        counts = torch.bincount(targets[part], minlength=3).tolist()
        assert counts[0] == 15
        assert counts[1] in (7, 8)
        assert counts[2] == 1


def test_parts_are_judged_on_images_that_no_fit_has_seen():
    train, judged = made_up(96, 0), made_up(60, 1)
    done = []
    sizes = measure(train, judged, 3, done.append)
    assert [size.images for size in sizes] == [6, 12, 24, 48, 96]
    assert done == [1] * 5
    assert sizes[0].right.shape == (10, 60)
    assert sizes[-1].right.shape == (1, 60)
    accuracies = [float(size.right.mean()) for size in sizes]
    assert accuracies[0] < accuracies[-1]
    again = measure(train, judged, 3)
    assert all(np.array_equal(one.right, two.right) for one, two in zip(sizes, again, strict=True))


def test_a_law_without_a_floor_is_found_again():
    images = [20, 40, 80, 160, 320]
    error = 2.0 * np.array(images, float) ** -0.5
    curve = fit_curve([answers(1 - e, n) for e, n in zip(error, images, strict=True)], [640, 1280])
    for estimate, n in zip(curve.forecast, (640, 1280), strict=True):
        assert estimate.low <= 1 - 2.0 * n**-0.5 <= estimate.high
        assert estimate.accuracy > curve.points[-1].accuracy


def test_a_curve_that_has_ended_stays_where_it_is():
    curve = fit_curve([answers(0.8, n) for n in (20, 40, 80, 160, 320)], [640, 1280])
    for estimate in curve.forecast:
        assert 0.79 < estimate.accuracy < 0.82
        assert estimate.low <= 0.8 <= estimate.high


def test_fewer_validation_images_make_the_intervals_wider():
    def width(judged):
        sizes = [answers(a, n, judged=judged) for a, n in ((0.5, 20), (0.6, 40), (0.7, 80), (0.75, 160))]
        curve = fit_curve(sizes, [320])
        return [one.high - one.low for one in curve.points + curve.forecast]

    assert all(few > 1.5 * many for few, many in zip(width(50), width(800), strict=True))


def test_too_few_sizes_or_images_to_judge_on_say_nothing_of_more():
    few = [answers(0.5, n) for n in (20, 40, 80)]
    assert len(few) < LEAST_SIZES
    assert fit_curve(few, [160]).forecast == ()
    assert len(fit_curve(few, [160]).points) == 3
    assert fit_curve([answers(0.5, n, judged=8) for n in (20, 40, 80, 160)], [320]).forecast == ()


def test_the_whole_lies_in_the_interval_that_half_gives_about_as_often_as_it_says():
    hits = 0
    for seed in range(20):
        features, targets = made_up(192, seed)
        judged = made_up(150, 1000 + seed)
        half = draw_part(targets, 96, np.random.default_rng(seed))
        forecast = fit_curve(measure((features[half], targets[half]), judged, 3), [192]).forecast[0]
        truth = float(measure((features, targets), judged, 3)[-1].right.mean())
        hits += forecast.low <= truth <= forecast.high
    assert hits >= 14


def points():
    measured = [CurvePoint(n, "", Estimate(a, a - 0.05, a + 0.04)) for n, a in ((29, 0.56), (1467, 0.84))]
    return [*measured, CurvePoint(2934, "2×", Estimate(0.86, 0.81, 0.91))]


@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_chart_has_a_line_for_each_point(ascii_only):
    text = draw_chart(points(), width=60, ascii_only=ascii_only)
    lines = text.splitlines()
    assert len(lines) == 4
    assert all(len(line) <= 60 for line in lines)
    assert "   29   56.0%" in lines[0]
    assert lines[2].startswith("2×  2,934   86.0%")
    dot, more = ("*", "o") if ascii_only else ("●", "○")
    assert lines[0].index(dot) < lines[1].index(dot) < lines[2].index(more)
    assert lines[3].split() == ["50%", "100%"]


def test_the_picture_is_the_same_each_time(tmp_path):
    for name in ("one.png", "two.png"):
        write_plot("photos <of> bugs", points(), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    write_plot("measured alone", points()[:2], tmp_path / "measured.png")
