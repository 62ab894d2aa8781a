"""Measure how fast `finetune check` looks at images, beside Pillow's plain decoding of the same files.

    python benchmarks/check_speed.py                     # two minutes on two cores
    python benchmarks/check_speed.py --images 2000 --rounds 9

JPEGs of 500 × 375 are drawn, then looked at in turn: by Pillow in one process (`Image.open`, `load`), by us
in one process, and in one for each core, with the starting of the processes. What is printed is the median of
the rounds, and the median of their ratios with quartiles, because a machine's speed is noisy. At the end the
search for copies and look-alikes is timed on thumbnails of as many pictures as the option says.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from photos import draw_photo
from PIL import Image

from finetune.data.images import THUMBNAIL_SIDE, ImageLimits, look_at_images

LIMITS = ImageLimits()
DRAWN = 60  # different pictures; all others are these, at other qualities


def draw_files(folder: Path, images: int) -> list[Path]:
    """Write the JPEGs, and give their paths."""
    generator = np.random.default_rng(0)
    photos = [draw_photo(generator) for _ in range(DRAWN)]
    paths = []
    for number in range(images):
        paths.append(folder / f"{number:06}.jpg")
        photos[number % DRAWN].save(paths[-1], quality=88 + number // DRAWN % 5)
    return paths


def decode(paths: list[Path]) -> None:
    """Decode every file as a plain loop with Pillow does."""
    for path in paths:
        with Image.open(path) as image:
            image.load()


def look(paths: list[Path], processes: int) -> None:
    """Look at every file as `finetune check` does."""
    looks = list(look_at_images(paths, LIMITS, processes=processes))
    assert not any(isinstance(one, str) for one in looks)


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def print_speed(paths: list[Path], rounds: int) -> None:
    """Let the three ways take turns, and print images per second and ratios."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ways: dict[str, Callable[[], object]] = {
        "Pillow, 1 process": lambda: decode(paths),
        "look, 1 process": lambda: look(paths, 0),
        f"look, {cores} processes": lambda: look(paths, cores),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            times[name].append(seconds(work))
    plain = times["Pillow, 1 process"]
    for name, taken in times.items():
        ratios = [slow / fast for slow, fast in zip(plain, taken, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        speed = len(paths) / statistics.median(taken)
        print(f"  {name:<18} {speed:6.0f} images/s, {middle:.2f} ({low:.2f} – {high:.2f}) times Pillow")


def print_search(folder: Path, paths: list[Path], pictures: int) -> None:
    """Print what it takes to find copies, and look-alikes among more and more pictures."""
    # Not at the top: the processes that look at images import this file, and have no use for torch.
    from finetune.data.quality.copies import find_copies
    from finetune.data.quality.lookalikes import find_lookalikes

    copies = seconds(lambda: find_copies(folder, [path.name for path in paths]))
    print(f"copies among {len(paths):,} files: {copies:.2f} s")
    generator = np.random.default_rng(1)
    for number in (pictures // 4, pictures // 2, pictures):
        thumbnails = smooth_noise(generator, number)
        print(f"look-alikes among {number:,}: {seconds(lambda: find_lookalikes(thumbnails)):.2f} s")  # noqa: B023


def smooth_noise(generator: np.random.Generator, number: int) -> np.ndarray:
    """Draw thumbnails (N, P) whose amplitude falls with the frequency, as in photos."""
    side = THUMBNAIL_SIDE
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1
    noise = np.fft.rfft2(generator.standard_normal((number, side, side), dtype=np.float32)) / frequency
    pictures = np.fft.irfft2(noise, (side, side)).reshape(number, -1)
    pictures = (pictures - pictures.mean(axis=1, keepdims=True)) / pictures.std(axis=1, keepdims=True)
    return (pictures * 40 + 128).clip(0, 255).astype(np.uint8)


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pictures", type=int, default=100_000, help="in the search for look-alikes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = draw_files(Path(folder), arguments.images)
        kib = sum(path.stat().st_size for path in paths) / len(paths) / 1024
        print(f"{len(paths):,} JPEGs of 500 × 375, {kib:.0f} KiB each, load {os.getloadavg()[0]:.1f}")
        print_speed(paths, arguments.rounds)
        print_search(Path(folder), paths, arguments.pictures)


if __name__ == "__main__":
    main()
