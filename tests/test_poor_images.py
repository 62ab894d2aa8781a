"""Dark, bright, empty, blurred and small images: told of once, and only where they are exceptions."""

import pytest

from finetune.data.images import ImageInfo, Look
from finetune.data.images.appearance import Appearance
from finetune.data.quality.poor_images import find_poor

USUAL = {"brightest": 0.9, "darkest": 0.1, "information": 7.0, "sharpness": 0.7}


def look(width=400, height=300, **changes):
    return Look(ImageInfo(width, height, False), "RGB", b"", Appearance(**(USUAL | changes)), "")


def among_others(number=30, **odd):
    """Return looks at usual images, and at some that are not."""
    return {f"{n:02}.jpg": look() for n in range(number)} | odd


@pytest.mark.parametrize(
    ("changes", "kind", "detail"),
    [
        ({"brightest": 0.31}, "dark", "99% of it below 31%"),
        ({"darkest": 0.91}, "bright", "95% of it above 91%"),
        ({"information": 0.9}, "empty", "0.9 bits"),
        ({"sharpness": 0.11}, "blurred", "sharpness 0.11"),
        ({"width": 99, "height": 75}, "small", "99 × 75"),
    ],
)
def test_each_kind_is_found_at_its_limit(changes, kind, detail):
    (finding,) = find_poor(among_others(odd=look(**changes)))
    assert (finding.kind, finding.level) == (kind, "warning")
    (item,) = finding.items
    assert item.images == ("odd",)
    assert item.detail.startswith(detail)


@pytest.mark.parametrize(
    "changes",
    [
        {"brightest": 0.33},
        {"darkest": 0.89},
        {"information": 1.1},
        {"sharpness": 0.13},
        {"width": 101, "height": 76},
    ],
    ids=str,
)
def test_what_is_on_the_other_side_is_not(changes):
    assert find_poor(among_others(odd=look(**changes))) == []


def test_an_image_is_told_of_once_by_the_worst():
    black = look(brightest=0.0, darkest=0.0, information=0.0, sharpness=0.0)
    assert [finding.kind for finding in find_poor(among_others(odd=black))] == ["dark"]


def test_what_many_images_are_is_the_nature_of_the_set():
    drawings = {f"{n}": look(information=0.5) for n in range(5)}
    assert find_poor(among_others(40, **drawings)) == []
    assert len(find_poor(among_others(50, **drawings))[0].items) == 5


def test_drawings_are_empty_beside_drawings_alone():
    flags = {f"{n}": look(information=1.8) for n in range(30)}
    assert find_poor(flags | {"two colours": look(information=0.7)}) == []
    (finding,) = find_poor(flags | {"blank": look(information=0.1)})
    assert finding.kind == "empty"


def test_nothing_is_found_in_nothing():
    assert find_poor({}) == []
