"""Measure what very many images cost before a training looks at the first of them, and how that grows.

    python benchmarks/scale.py                            # 10,000, 100,000 and 1,000,000 images in folders
    python benchmarks/scale.py 10000 --kind zip           # members of one ZIP archive, or of a TAR (tar)
    python benchmarks/scale.py 10000 --kind table         # the same folders, and a CSV with a row for each
    python benchmarks/scale.py 10000 --folder /tmp/tiny   # drawn once, and kept in /tmp/tiny
    python benchmarks/scale.py 10000 --check              # also what `finetune check` compares

Images are PNG files of 12 to 20 pixels a side, noise of about 800 bytes, in a hundred class folders; a
million take 4 GB. Each size is measured in two processes of its own. The first begins with an empty cache:
`read` reads the bytes of all images and does nothing else, `decode` also decodes them with Pillow, both on
all cores by as many processes, and `cold` is the scan. The second begins with what the first has remembered:
`ask` reads it, and of very many images starts a process that asks about them meanwhile; `list`, `split`,
`warm` (the scan), `order` (of an epoch). The files are in the system's memory throughout.

Of each, seconds of CPU (processes of its own included) and by the clock. `memory` is what the resident memory
of the process grows by at its peak, from before the listing to after the scan, in bytes an image.
"""

import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image

from finetune.data.image_files import open_file
from finetune.data.images import ImageLimits
from finetune.data.index import ImageIndex
from finetune.data.quality.scan_cache import ScanMemory
from finetune.machine.collection import no_collection
from finetune.machine.cores import usable_cores
from finetune.progress import no_bar

CLASSES = 100
NUMBERS = [10_000, 100_000, 1_000_000]
COLD, WARM = ("read", "decode", "cold"), ("ask", "list", "split", "warm", "order")


def main() -> None:
    """Print two rows for each number of images: seconds of CPU, and by the clock."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("numbers", nargs="*", type=int, default=NUMBERS)
    parser.add_argument("--kind", choices=["folders", "zip", "tar", "table"], default="folders")
    parser.add_argument("--folder", type=Path, help="where images are kept")
    parser.add_argument("--check", action="store_true", help="also what `finetune check` compares")
    parser.add_argument("--measure", choices=["cold", "warm", "check"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options.folder)))
        return
    names = [*COLD, *WARM, *(["look", "compare"] if options.check else [])]
    print(f"{'images':>9} {'':5} " + " ".join(f"{name:>8}" for name in names) + "   cold and warm memory")
    for number in options.numbers:
        with tempfile.TemporaryDirectory() as temporary:
            path = drawn(options.folder or Path(temporary), number, options.kind)
            rounds = ["cold", "warm", *(["check"] if options.check else [])]
            found = [in_process(measure, path, f"{temporary}/cache") for measure in rounds]
        for clock, unit in enumerate(("CPU", "clock")):
            cells = [f"{one['seconds'][name][clock]:8.2f}" for one in found for name in one["seconds"]]
            memory = " ".join(f"{one['memory'] / number:7.0f}" for one in found) if clock == 0 else ""
            print(f"{number:9,} {unit:5} {' '.join(cells)}   {memory}", flush=True)


def drawn(folder: Path, number: int, kind: str) -> Path:
    """Draw tiny images that all differ, unless they are there; return the path of the data set."""
    images = folder / str(number)
    if kind in ("folders", "table") and not images.exists():
        unfinished = images.with_suffix(".unfinished")
        for position in range(CLASSES):
            (unfinished / f"class_{position}").mkdir(parents=True, exist_ok=True)
        for position in range(number):
            (unfinished / name_of(position)).write_bytes(picture(position))
        unfinished.rename(images)
    packed = images.with_suffix({"folders": "", "table": ".csv"}.get(kind, f".{kind}"))
    if packed.exists():
        return packed
    if kind == "table":
        rows = (f"{number}/{name_of(n)},class {n % CLASSES}\n" for n in range(number))
        packed.write_text("image,label\n" + "".join(rows))
    elif kind == "zip":
        with zipfile.ZipFile(packed, "w") as archive:
            for n in range(number):
                archive.writestr(name_of(n), picture(n))
    else:
        with tarfile.open(packed, "w") as tar:
            for n in range(number):
                info = tarfile.TarInfo(name_of(n))
                info.size = len(picture(n))
                tar.addfile(info, BytesIO(picture(n)))
    return packed


def name_of(position: int) -> str:
    """Return the name of an image, in the folder of its class."""
    return f"class_{position % CLASSES}/{position:07}.png"


def picture(position: int) -> bytes:
    """Return a PNG of noise, which is not compressed; by hand, in a fifth of Pillow's time."""
    side = 12 + position % 9
    noise = random.Random(position).randbytes(side * side * 3)
    rows = b"".join(b"\0" + noise[start : start + side * 3] for start in range(0, len(noise), side * 3))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def in_process(measure: str, path: Path, cache: str) -> Any:
    """Return what a process of its own has measured."""
    command = [sys.executable, __file__, "--measure", measure, "--folder", str(path)]
    environment = os.environ | {"XDG_CACHE_HOME": cache}
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)


class Stopwatch:
    """Seconds of CPU, and by the clock, of some pieces of work; and by how much memory grew."""

    def __init__(self) -> None:
        """Forget the peak of memory that imports have left."""
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _peak()
        self.seconds: dict[str, tuple[float, float]] = {}
        self.memory = 0

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        """Do some work."""
        cpu, clock = sum(os.times()[:4]), time.perf_counter()
        result = work()
        self.seconds[name] = sum(os.times()[:4]) - cpu, time.perf_counter() - clock
        self.memory = _peak() - self._before
        return result

    def found(self) -> dict[str, Any]:
        """Return all of it."""
        return {"seconds": self.seconds, "memory": self.memory}


def _peak() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    return int(line.split()[1]) * 1024


def cold(path: Path) -> dict[str, Any]:
    """Measure a first scan, beside what reads the same bytes."""
    from finetune.data.quality.scan import check_images

    others, paths = Stopwatch(), paths_of(indexed(path))
    others.time("read", lambda: on_all_cores(read, paths))
    others.time("decode", lambda: on_all_cores(decode, paths))
    watch = Stopwatch()
    with no_collection():
        index = indexed(path)
        watch.time("cold", lambda: check_images(index, LIMITS))
    return {"seconds": others.seconds | watch.seconds, "memory": watch.memory}


def warm(path: Path) -> dict[str, Any]:
    """Measure what a process does that finds everything as it was."""
    from finetune.data.indexing.build import list_images, split_images
    from finetune.data.loading.sampler import EpochSampler
    from finetune.data.quality.scan import check_images

    watch = Stopwatch()
    with no_collection():
        memory = watch.time("ask", lambda: ScanMemory.asked_ahead(path, LIMITS))
        listed = watch.time("list", lambda: list_images(path))
        index = watch.time("split", lambda: split_images(listed, path, val=0.2, seed=0))
        watch.time("warm", lambda: check_images(index, LIMITS, memory=memory))
    sampler = EpochSampler(index.count("train"), 32, 0)
    watch.time("order", lambda: sampler.positions(0, 0))
    return watch.found()


def paths_of(index: ImageIndex) -> list[str]:
    """Return the paths of all images."""
    return [f"{index.root}/{sample.name}" for sample in index.samples]


def check(path: Path) -> dict[str, Any]:
    """Measure what `finetune check` does beyond that."""
    from finetune.commands.check.check import compare_looks, look_at_all

    watch, index = Stopwatch(), indexed(path)
    looks, _ = watch.time("look", lambda: look_at_all(index, LIMITS, no_bar))
    watch.time("compare", lambda: compare_looks(index, looks, LIMITS))
    return watch.found()


def indexed(path: Path) -> ImageIndex:
    """List the images, and split them."""
    from finetune.data.indexing.build import list_images, split_images

    with no_collection():
        return split_images(list_images(path), path, val=0.2, seed=0)


def on_all_cores(work: Callable[[list[str]], None], paths: list[str]) -> None:
    """Let as many processes as there are cores share some files."""
    cores = usable_cores()
    context = get_context("fork")
    processes = [context.Process(target=work, args=(paths[n::cores],)) for n in range(cores)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def read(paths: list[str]) -> None:
    """Read the bytes of some files."""
    for path in paths:
        with open_file(path) as file:
            file.read()


def decode(paths: list[str]) -> None:
    """Decode some files with Pillow."""
    for path in paths:
        with open_file(path) as file:
            Image.open(file, formats=["PNG"]).convert("RGB")


LIMITS = ImageLimits()
MEASURES = {"cold": cold, "warm": warm, "check": check}

if __name__ == "__main__":
    main()
