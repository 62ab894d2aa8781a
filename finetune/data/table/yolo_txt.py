"""Read what a label file of YOLO says is in an image: a class number and a box, or an outline, on each line.

As of COCO, the boxes are not looked at. The names of the classes stand in `data.yaml` or a list of names.
"""

import re
from collections.abc import Iterable

_LINE = re.compile(r"(\d{1,6})((?: +-?\d*\.?\d+(?:[eE][-+]?\d+)?){4,})")
_NAME = re.compile(r"""["']?(.*?)["']?""")

NAME_FILES = (
    "data.yaml",
    "dataset.yaml",
    "data.yml",
    "classes.txt",
    "obj.names",
    "labels.txt",
    "_darknet.labels",
)
"""what files are called that name the classes, by their numbers from 0"""


def read_yolo(content: bytes) -> tuple[str, ...]:
    """Return the numbers of the classes in an image, each once, in order; none of an empty file.

    Raises:
        ValueError: a line is something else.
    """
    found: dict[str, None] = {}
    for number, line in enumerate(content.decode("utf-8-sig").splitlines(), start=1):
        if not (text := line.strip().replace("\t", " ")):
            continue
        if (match := _LINE.fullmatch(text)) is None:
            raise ValueError(f"line {number} is no class number with a box, as YOLO writes them")
        found[str(int(match[1]))] = None
    return tuple(found)


def looks_like_yolo(contents: Iterable[bytes]) -> bool:
    """Tell whether files, some of which may be empty, are label files of YOLO."""
    marked = False
    for content in contents:
        try:
            marked = bool(read_yolo(content)) or marked
        except ValueError:
            return False
    return marked


def class_names(file: str, text: str) -> dict[str, str]:
    """Return the names of classes by their numbers, from a file of `NAME_FILES`; nothing if it has none.

    Of YAML the forms of `names` that exporters write are read, and nothing else: a list in a line or in
    several, and numbers with names.
    """
    if not file.endswith((".yaml", ".yml")):
        return {str(n): line.strip() for n, line in enumerate(text.split("\n")) if line.strip()}
    listed = re.search(r"^names *: *\[([^\]]*)\]", text, re.MULTILINE)
    if listed is not None:
        return {str(n): _plain(one) for n, one in enumerate(listed[1].split(",")) if _plain(one)}
    block = re.search(r"^names *:[ \t]*\n((?:(?:[ \t]+\S|-).*\n?)+)", text, re.MULTILINE)
    lines = [] if block is None else block[1].splitlines()
    if lines and all(line.lstrip().startswith("- ") for line in lines):
        return {str(n): _plain(line.lstrip()[2:]) for n, line in enumerate(lines)}
    pairs = [re.fullmatch(r"\s*(\d+) *: *(.+)", line) for line in lines]
    return {str(int(pair[1])): _plain(pair[2]) for pair in pairs if pair}


def _plain(text: str) -> str:
    stripped = text.split(" #")[0].strip()
    match = _NAME.fullmatch(stripped)
    return stripped if match is None else match[1]
