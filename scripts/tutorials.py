"""Run the tutorials of the documentation, and write what their commands print into them.

python scripts/tutorials.py PHOTOGRAPHS             # all pages; PHOTOGRAPHS has clothes/ and hymenoptera/
python scripts/tutorials.py PHOTOGRAPHS docs/start.md

A page names the images that it starts with, `<!-- images: photos -->`, and has its commands in blocks of
`console`, after a `$`. Before such a block `<!-- show 5 … 12 -->` keeps the first 5 and the last 12 lines of
what it prints. A block after `<!-- file: photos.yaml -->` is written to that file before any command runs.

`<!-- picture: labels.html 1000×600 -->` stands before a picture of a page that the commands have written, as
Chromium shows it, or of a picture that they have drawn; it is put where the line after it looks for it.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser  # noqa: E402 - where the tests have it

PAGES = (ROOT / "docs" / "start.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md")))

_IMAGES = re.compile(r"<!-- images: (\w+) -->")
_BLOCK = re.compile(
    r"(?:<!-- show (?P<first>\d+) … (?P<last>\d+) -->\n)?^```console\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PICTURE = re.compile(
    r"<!-- picture: (?P<shown>\S+)(?: (?P<width>\d+)×(?P<height>\d+))? -->\n!\[[^\]]*\]\((?P<kept>[^)]+)\)"
)
_WIDTH = "110"


def class_folders(photographs: Path, folder: Path) -> None:
    """Give each of eight kinds of clothes a folder in train/ and val/; leave six out as new ones."""
    shutil.copytree(photographs / "clothes", folder / "photos")
    (folder / "new").mkdir()
    for kind in sorted((folder / "photos" / "val").iterdir())[:6]:
        image = min(kind.iterdir())
        image.rename(folder / "new" / f"{kind.name}{image.suffix}")


def named_files(photographs: Path, folder: Path) -> None:
    """Put all images into one folder, each named after what it shows: `Ants_12.jpg`."""
    (folder / "insects").mkdir()
    for kind in ("ants", "bees"):
        images = sorted(photographs.glob(f"hymenoptera/*/{kind}/*"))
        for number, image in enumerate(images, 1):
            shutil.copy(image, folder / "insects" / f"{kind.title()}_{number}{image.suffix}")


def uneven_table(photographs: Path, folder: Path) -> None:
    """Write a table of images of few rare and many frequent classes, up to four of one wearer each."""
    (folder / "scans").mkdir()
    rows, drawn = ["file,finding,patient"], random.Random(0)
    for kind, share in (("t-shirt", 1.0), ("longsleeve", 0.5), ("shirt", 0.25)):
        images = sorted(photographs.glob(f"clothes/*/{kind}/*"))
        for number, image in enumerate(images[: max(6, int(share * len(images)))]):
            name = f"{len(rows):04}{image.suffix}"
            shutil.copy(image, folder / "scans" / name)
            rows.append(f"{name},{kind},{kind[0]}{number // drawn.choice((2, 3, 4)):03}")
    (folder / "scans.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def spoiled_labels(photographs: Path, folder: Path) -> None:
    """Put every eighth image of clothes into the folder of another class."""
    class_folders(photographs, folder)
    kinds, drawn = sorted(path.name for path in (folder / "photos" / "train").iterdir()), random.Random(0)
    for image in sorted((folder / "photos" / "train").glob("*/*"))[::8]:
        other = drawn.choice([kind for kind in kinds if kind != image.parent.name])
        image.rename(folder / "photos" / "train" / other / image.name)


def outfits(photographs: Path, folder: Path) -> None:
    """Put one, two or three kinds of clothes into each picture, side by side, and write down which."""
    (folder / "outfits").mkdir()
    images = {
        kind: sorted(photographs.glob(f"clothes/*/{kind}/*"))
        for kind in ("outwear", "pants", "shoes", "t-shirt")
    }
    rows, drawn = ["image,wears"], random.Random(0)
    for number in range(160):
        worn = sorted(drawn.sample(sorted(images), drawn.choice((1, 2, 2, 3))))
        picture = Image.new("RGB", (160 * len(worn), 200), "white")
        for place, kind in enumerate(worn):
            with Image.open(drawn.choice(images[kind])) as piece:
                picture.paste(piece.convert("RGB").resize((160, 200)), (160 * place, 0))
        picture.save(folder / "outfits" / f"{number:03}.jpg")
        rows.append(f"{number:03}.jpg,{';'.join(worn)}")
    (folder / "outfits.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def seasons(photographs: Path, folder: Path) -> None:
    """Write a table of clothes with the season in which each was worn, of which a tenth is not known."""
    (folder / "worn").mkdir()
    rows, drawn = ["image,kind,season"], random.Random(0)
    for kind, usual in (
        ("longsleeve", "winter"),
        ("outwear", "winter"),
        ("shorts", "summer"),
        ("t-shirt", "summer"),
    ):
        for image in sorted(photographs.glob(f"clothes/*/{kind}/*")):
            name = f"{len(rows):04}{image.suffix}"
            shutil.copy(image, folder / "worn" / name)
            other = "summer" if usual == "winter" else "winter"
            rows.append(f"{name},{kind},{drawn.choices((usual, other, ''), (0.8, 0.1, 0.1))[0]}")
    (folder / "worn.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


PREPARED: dict[str, Callable[[Path, Path], None]] = {
    "photos": class_folders,
    "insects": named_files,
    "scans": uneven_table,
    "spoiled": spoiled_labels,
    "outfits": outfits,
    "worn": seasons,
}


@dataclass(frozen=True)
class Ran:
    """A command of a page, and what came of it."""

    command: str
    output: str
    exit_code: int


def in_shell(command: str, folder: Path) -> Ran:
    """Run a command as a reader of the page would."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"COLUMNS": _WIDTH, "PATH": programs, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return Ran(command, done.stdout.replace(f"{folder}/", ""), done.returncode)


@contextmanager
def folder_of(page: str, photographs: Path) -> Iterator[Path]:
    """Make the folder in which a page begins, with its images and files."""
    with tempfile.TemporaryDirectory(prefix="tutorial-") as name:
        if named := _IMAGES.search(page):
            PREPARED[named[1]](photographs, Path(name))
        for file, content in _FILE.findall(page):
            (Path(name) / file).write_text(content, encoding="utf-8")
        yield Path(name)


def run_blocks(page: str, folder: Path, run: Callable[[str, Path], Ran] = in_shell) -> Iterator[list[Ran]]:
    """Run the commands of a page in its folder, and return what came of each block."""
    for block in _BLOCK.finditer(page):
        commands = [line[2:] for line in block["text"].splitlines() if line.startswith("$ ")]
        yield [run(command, folder) for command in commands]


def take_pictures(page: str, folder: Path, beside: Path) -> None:
    """Keep the pictures of what the commands of a page have left in its folder, `beside` the page."""
    for picture in _PICTURE.finditer(page):
        kept = beside / picture["kept"]
        if picture["width"] is None:
            shutil.copy(folder / picture["shown"], kept)
            continue
        file, _, part = picture["shown"].partition("#")
        size = int(picture["width"]), int(picture["height"])
        take_picture(folder / file, kept, size=size, part=part)


def take_picture(page: Path, kept: Path, *, size: tuple[int, int], part: str = "") -> None:
    """Keep a picture of what Chromium shows of a page, from its beginning or from a part on, by its id."""
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        browser.open(page.as_uri(), width=size[0], height=size[1])
        if part:
            browser.evaluate(f"document.getElementById('{part}').scrollIntoView()")
        browser.evaluate("document.documentElement.style.scrollbarWidth = 'none'")
        browser.screenshot(kept)
    with Image.open(kept) as image:
        image.convert("RGB").quantize(256).save(kept, optimize=True)


def filled(page: str, blocks: list[list[Ran]]) -> str:
    """Return the text of a page with what its commands printed."""
    rest = iter(blocks)

    def fill(block: re.Match[str]) -> str:
        first, last = (int(block[end] or 1000) for end in ("first", "last"))
        shown = "".join(f"$ {ran.command}\n{_shortened(ran.output, first, last)}" for ran in next(rest))
        return block[0].replace(block["text"], shown)

    return _BLOCK.sub(fill, page)


def _shortened(output: str, first: int, last: int) -> str:
    lines = [line.rstrip() for line in output.splitlines()]
    if len(lines) > first + last:
        lines = [*lines[:first], "…", *lines[len(lines) - last :]]
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Run the pages that are named, or all."""
    photographs, pages = Path(sys.argv[1]).resolve(), [Path(page) for page in sys.argv[2:]] or PAGES
    for path in pages:
        page = path.read_text(encoding="utf-8")
        with folder_of(page, photographs) as folder:
            blocks = list(run_blocks(page, folder))
            for ran in (ran for block in blocks for ran in block if ran.exit_code):
                print(f"{path}: exit code {ran.exit_code}: {ran.command}\n{ran.output}", file=sys.stderr)
            take_pictures(page, folder, path.parent)
        path.write_text(filled(page, blocks), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
