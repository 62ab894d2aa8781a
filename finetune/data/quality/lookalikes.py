"""Find images that look alike: a photograph and the same one resized, recompressed, brightened.

Pictures are compared by thumbnails of grey pixels, without regard to brightness and contrast: their
correlation, which is the cosine of the angle between two vectors. Candidates come from a perceptual hash, the
signs of random projections (Charikar, "Similarity estimation techniques from rounding algorithms", 2002): two
vectors at an angle θ differ in a bit with probability θ/π. Every candidate is then compared in full, so the
hash decides only what is overlooked.

Thumbnails are enough to tell photographs apart that fill the picture. A bright spot on black is like any
other, so what is left is compared once more by what a thumbnail cannot show: finer detail, and, of drawings
such as flags, colour.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finetune.data.images import DETAIL_SIDE, THUMBNAIL_SIDE

ALIKE = 0.98
"""least correlation of two thumbnails that count as the same image, see benchmarks/lookalikes.py"""

# 24 tables of 24 bits: a pair at the very threshold meets in one of them with probability
# 1 − (1 − (1 − θ/π)²⁴)²⁴ = 99.6%, one at 0.995 always. Pictures of different things hardly ever meet.
_TABLES, _BITS = 24, 24
_NEIGHBOURS = 8  # with the same bits that each image is compared with, so that time grows with the number
_TOGETHER = 2048  # thumbnails that are vectors of floats at a time: four times their size
_LEAST_CONTRAST = 4.0  # standard deviation in grey levels; below, noise decides what is alike

# Of copies the detail correlates by 0.85 and more, of those turned by 2° by 0.55, of star clusters by 0.33.
_SAME_DETAIL = 0.4
_LEAST_DETAIL = 1.0  # standard deviation in grey levels; a smaller one is noise, and tells nothing

# Most neighbouring pixels of a drawing are the same; of 100 photographs, one is so: their grey pixels tell
# enough, and of a copy in another tint as well. Colours of blurred drawings correlate by 0.92 and more.
_SAME_GREY, _DRAWN = 1, 0.5
_SAME_COLOUR = 0.85
_LEAST_COLOUR = 8.0  # distance from grey in levels, root mean square; below, it is a grey picture

Enlarge = Callable[[Sequence[int]], Sequence[bytes | None]]
"""Returns the images at some positions in `DETAIL_SIDE`² pixels of YCbCr; None for one that has gone."""


def find_lookalikes(thumbnails: NDArray[np.uint8], enlarge: Enlarge | None = None) -> list[tuple[int, ...]]:
    """Group the thumbnails (N, P) that look alike, each to at least one other of its group, by position.

    Thumbnails without contrast are in no group. Time is proportional to N, but for a sort; memory takes some
    hundred bytes an image beside the thumbnails.

    Args:
        thumbnails: one row for each image.
        enlarge: returns larger pictures of those that look alike, whose detail has to agree, and colour if
            they are drawings; None to go by the thumbnails alone.
    """
    positions = _with_contrast(thumbnails)
    leader = list(range(len(positions)))
    pairs = _pairs(thumbnails, positions)
    for one, other in pairs if enlarge is None else _confirmed(pairs, positions, enlarge):
        first, second = sorted((_find(leader, one), _find(leader, other)))
        leader[second] = first
    groups: dict[int, list[int]] = {}
    for member, position in enumerate(positions.tolist()):
        groups.setdefault(_find(leader, member), []).append(position)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _with_contrast(thumbnails: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the positions of the thumbnails whose contrast is more than noise."""
    deviations = [np.zeros(0)]
    for start in range(0, len(thumbnails), _TOGETHER):
        deviations.append(thumbnails[start : start + _TOGETHER].std(axis=1, dtype=np.float32))
    return np.flatnonzero(np.concatenate(deviations) >= _LEAST_CONTRAST)


def _units(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return thumbnails (N, P) with contrast as unit vectors around 0."""
    grey = thumbnails.astype(np.float32)
    grey -= grey.mean(axis=1, keepdims=True)
    grey /= np.linalg.norm(grey, axis=1, keepdims=True)
    return grey


def _pairs(thumbnails: NDArray[np.uint8], positions: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the pairs of some thumbnails that are alike, as far as the hash brings them together.

    A pair is two places in `positions`, the smaller one first.
    """
    number, found = len(positions), np.zeros(0, np.int64)
    for keys in _hashes(thumbnails, positions):
        order = np.argsort(keys, kind="stable")
        meeting = []
        for gap in range(1, _NEIGHBOURS + 1):
            meet = keys[order[:-gap]] == keys[order[gap:]]
            if not meet.any():
                break
            one, other = order[:-gap][meet], order[gap:][meet]
            meeting.append(np.minimum(one, other) * number + np.maximum(one, other))
        alike = [found]
        for new in _portions(np.setdiff1d(np.concatenate([found[:0], *meeting]), found)):
            one, other = (_units(thumbnails[positions[part]]) for part in np.divmod(new, number))
            alike.append(new[np.einsum("np,np->n", one, other) >= ALIKE])
        found = np.sort(np.concatenate(alike))
    return [divmod(pair, number) for pair in found.tolist()]


def _hashes(thumbnails: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the bits of each thumbnail in each table (T, N): the sides of random planes that it is on."""
    random = np.random.default_rng(0)  # a constant of the hash: the same images meet on every machine
    shape = (thumbnails.shape[1], _BITS)
    planes = [random.standard_normal(shape, dtype=np.float32) for _ in range(_TABLES)]
    weights = 1 << np.arange(_BITS)
    hashes = np.empty((_TABLES, len(positions)), np.int32)
    filled = 0
    for some in _portions(positions):
        vectors = _units(thumbnails[some])
        for table, sides in enumerate(planes):
            hashes[table, filled : filled + len(some)] = (vectors @ sides > 0) @ weights
        filled += len(some)
    return hashes


def _portions(positions: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Return some thousand positions at a time, whose thumbnails take a few megabytes as vectors."""
    for start in range(0, len(positions), _TOGETHER):
        yield positions[start : start + _TOGETHER]


def _confirmed(
    pairs: Sequence[tuple[int, int]], positions: NDArray[np.int64], enlarge: Enlarge
) -> Iterator[tuple[int, int]]:
    """Return the pairs whose detail and colours agree, or say nothing."""
    members = sorted({member for pair in pairs for member in pair})
    pictures = enlarge([int(positions[member]) for member in members])
    larger = dict(zip(members, pictures, strict=True))
    for one, other in pairs:
        first, second = larger[one], larger[other]
        if first is None or second is None or _same_picture(_pixels(first), _pixels(second)):
            yield one, other


def _pixels(picture: bytes) -> NDArray[np.float32]:
    """Return the planes (3, H, W) of a picture in YCbCr, those of colour around 0."""
    pixels = np.frombuffer(picture, np.uint8).reshape(DETAIL_SIDE, DETAIL_SIDE, 3).transpose(2, 0, 1)
    return pixels - np.array([0, 128, 128], np.float32)[:, None, None]


def _same_picture(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    colours = one[1:].ravel(), other[1:].ravel()
    drawn = _is_drawn(one[0]) and _is_drawn(other[0])
    if drawn and not _agree(*colours, least=_LEAST_COLOUR, same=_SAME_COLOUR):
        return False
    return _agree(_detail(one[0]), _detail(other[0]), least=_LEAST_DETAIL, same=_SAME_DETAIL)


def _is_drawn(grey: NDArray[np.float32]) -> bool:
    """Tell whether a picture has areas of one grey, as drawings have."""
    steps = np.concatenate([np.diff(grey, axis=axis).ravel() for axis in (0, 1)])
    return bool((np.abs(steps) <= _SAME_GREY).mean() > _DRAWN)


def _agree(one: NDArray[np.float32], other: NDArray[np.float32], *, least: float, same: float) -> bool:
    """Tell whether two vectors point the same way; one with less than `least` in a number agrees with any."""
    lengths = np.linalg.norm(one), np.linalg.norm(other)
    if min(lengths) < least * len(one) ** 0.5:
        return True
    return bool(one @ other >= same * lengths[0] * lengths[1])


def _detail(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a picture less what its thumbnail shows, slopes between its pixels included."""
    small = Image.fromarray(grey).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    shown = small.resize((DETAIL_SIDE, DETAIL_SIDE), Image.Resampling.BICUBIC)
    return (grey - np.asarray(shown, np.float32)).ravel()


def _find(leader: list[int], member: int) -> int:
    """Return the first member of a group, and shorten the way to it."""
    while leader[member] != member:
        leader[member] = leader[leader[member]]
        member = leader[member]
    return member
