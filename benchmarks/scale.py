"""Measure what very many images cost before a training looks at the first of them.

    python benchmarks/scale.py                # 10,000 and 100,000 tiny images
    python benchmarks/scale.py 1000000        # these many
    python benchmarks/scale.py 100000 --folder /tmp/tiny    # drawn once, and kept in /tmp/tiny/100000

Tiny PNG files in ten class folders are listed, indexed, split and looked at, all of which a first pass has
done before: the system knows the folders, and the cache of scans knows the files. Seconds are those of the
processor (all threads), the least of several passes. So they can be compared between two versions of this
program on a machine that does other work, if the versions take turns: PYTHONPATH=OTHER python scale.py.
"""

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from finetune.config.load import config_from_values
from finetune.data.indexing.build import list_images, split_images
from finetune.data.indexing.find_images import find_images
from finetune.data.quality.scan import check_images
from finetune.experiment.read_data import image_limits, read_data

CLASSES = 10
PASSES = 5


def main() -> None:
    """Print a row for each number of images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("numbers", nargs="*", type=int, default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="where images are kept, in a folder for each number")
    options = parser.parse_args()
    print(f"{'images':>9} {'list':>7} {'index':>7} {'split':>7} {'look':>7} {'all':>7}  seconds of CPU")
    for number in options.numbers:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
            images = (options.folder or Path(folder)) / str(number)
            draw(images, number)
            print(f"{number:9,} " + " ".join(f"{seconds:7.3f}" for seconds in measure(images)), flush=True)


def draw(folder: Path, number: int) -> None:
    """Write tiny images that all differ, unless they are there."""
    if folder.exists():
        return
    unfinished = folder.with_suffix(".unfinished")
    for position in range(CLASSES):
        (unfinished / f"class_{position}").mkdir(parents=True, exist_ok=True)
    for position in range(number):
        content = io.BytesIO()
        colour = (position % 256, position // 256 % 256, position // 65536)
        Image.new("RGB", (2, 2), colour).save(content, "PNG")
        (unfinished / f"class_{position % CLASSES}" / f"{position:07}.png").write_bytes(content.getvalue())
    unfinished.rename(folder)


def measure(folder: Path) -> list[float]:
    """Return the seconds that it takes to list images, to index and split them, to look at them, and all."""
    config = config_from_values(
        {"data": {"path": str(folder)}, "model": {"arch": "resnet18"}}, "benchmark", []
    )
    limits = image_limits(config)
    read_data(config)
    listed = list_images(folder)
    split = split_images(listed, folder, val=0.2, seed=0)
    listing = seconds(lambda: find_images(folder, ""))
    return [
        listing,
        seconds(lambda: list_images(folder)) - listing,
        seconds(lambda: split_images(listed, folder, val=0.2, seed=0)),
        seconds(lambda: check_images(split, limits)),
        seconds(lambda: read_data(config)),
    ]


def seconds(work: Callable[[], Any]) -> float:
    """Return the least CPU time of some passes, none of which remembers another's listing."""
    found = []
    for _ in range(PASSES):
        find_images(Path(__file__).parent, "")  # a listing is remembered until the next
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


main()
