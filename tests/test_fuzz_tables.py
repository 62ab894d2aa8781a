"""Tables written from a known truth in random shapes say the same when read; spoiled ones are refused."""

import csv
import io
import json
import os
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from finetune.data.indexing.build import list_images
from finetune.data.table import Columns
from finetune.errors import FinetuneError

CLASSES = (
    "cat", "dog", "big cat", "007", "7", "NA", "true", "no", "null", "1e3", "Käuzchen", "🦉", "猫", "a,b",
    "a;b", 'the "red"', "it's", "=1+1", "-", "#2", "two\nlines", "\u202eabc", "image", "é", "x|y", "{}", "[]",
)  # fmt: skip
STEMS = (
    "a",
    "img 1",
    "IMG_0042",
    "001",
    "7",
    "é",
    "🐜",
    "x,y",
    "x;y",
    'q"q',
    "it's",
    "100%41",
    "v1.2",
    "-n",
    "猫",
    "a-b_c",
)
ENDINGS = (".png", ".jpg", ".JPEG", ".webp")
FOLDERS = ("", "images", "photos/of 2020", "Train")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "shift_jis", "gb18030")
IMAGE_NAMES = ("image", "file_name", "Path", "Id", "picture", "url")
LABEL_NAMES = ("label", "Class", "breed", "what it is", "y")


@dataclass(frozen=True)
class Written:
    """A table in some shape, and what it says."""

    truth: dict
    name: str
    content: bytes
    encoding: str


@st.composite
def written_tables(draw):
    """Draw a truth and write it in one of the shapes that people have."""
    truth = draw(truths())
    rows = draw(st.permutations(list(truth.items())))
    rows += rows[: draw(st.integers(0, 2))]
    cells = [
        [as_written, label] for (_, label), as_written in zip(rows, draw(image_cells(rows)), strict=True)
    ]
    header = [draw(st.sampled_from(IMAGE_NAMES)), draw(st.sampled_from(LABEL_NAMES))]
    kind = draw(st.sampled_from(("csv", "tsv", "txt", "json", "jsonl", "by file", "parquet")))
    if kind == "by file" and len(rows) == len(truth):
        text = json.dumps(dict(cells), ensure_ascii=draw(st.booleans()))
        return Written(truth, "t.json", text.encode(), "auto")
    if draw(st.integers(0, 3)) == 0 and "image" not in truth.values():
        names = draw(st.permutations(sorted(set(truth.values()))))
        cells = [[row[0], *("01"[row[1] == name] for name in names)] for row in cells]
        header = [header[0], *names]
    elif draw(st.booleans()):
        cells, header = [[*row, f"n{n}", "same"] for n, row in enumerate(cells)], [*header, "number", "by"]
        order = draw(st.permutations(range(4)))
        cells, header = [[row[n] for n in order] for row in cells], [header[n] for n in order]
    if kind in ("json", "jsonl", "by file"):
        objects = [dict(zip(header, row, strict=True)) for row in cells]
        text = "\n".join(map(json.dumps, objects)) if kind == "jsonl" else json.dumps(objects, indent=1)
        return Written(truth, "t.jsonl" if kind == "jsonl" else "t.json", text.encode(), "auto")
    if kind == "parquet":
        return Written(truth, "t.parquet", as_parquet(header, cells), "auto")
    return draw(delimited(truth, kind, header, cells))


@st.composite
def truths(draw):
    """Draw images with their classes: two classes or more, with two images or more each."""
    names = draw(st.lists(st.sampled_from(CLASSES), min_size=2, max_size=4, unique_by=str.casefold))
    folder = draw(st.sampled_from(FOLDERS))
    stems = draw(st.permutations(STEMS))
    pairs = [(stem, names[n % len(names)]) for n, stem in enumerate(stems[: 2 * len(names) + 2])]
    return {
        f"{folder}/{stem}{draw(st.sampled_from(ENDINGS))}".lstrip("/"): label for stem, label in sorted(pairs)
    }


@st.composite
def image_cells(draw, rows):
    """Draw how the images of all rows are written."""
    files = [file for file, _ in rows]
    how = draw(st.sampled_from(("as it is", "name", "stem", "back slash", "blanks", "parent", "address")))
    match how:
        case "name":
            return [os.path.basename(file) for file in files]
        case "stem":
            return [os.path.splitext(os.path.basename(file))[0] for file in files]
        case "back slash":
            return [file.replace("/", "\\") for file in files]
        case "blanks":
            return [f" {file}  " for file in files]
        case "parent":
            return [f"some/where/{file}" for file in files]
        case "address":
            return [f"/data/upload/3/{n % 2:08x}-{os.path.basename(file)}" for n, file in enumerate(files)]
    return files


def as_parquet(header, cells):
    pandas = pytest.importorskip("pandas")
    file = io.BytesIO()
    pandas.DataFrame(cells, columns=header).to_parquet(file)
    return file.getvalue()


@st.composite
def delimited(draw, truth, kind, header, cells):
    """Draw the separator, the encoding, and whether there are column names."""
    separator = "\t" if kind == "tsv" else draw(st.sampled_from((",", ";", "\t", "|")))
    encoding = draw(st.sampled_from(ENCODINGS))
    file = io.StringIO()
    quoting = draw(st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))
    ends = draw(st.sampled_from(("\n", "\r\n")))
    writer = csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=ends)
    named = len(set(header) & set(truth.values())) > 1 or draw(st.booleans())  # columns of 0 and 1 need names
    writer.writerows([header, *cells] if named else cells)
    try:
        content = file.getvalue().encode(encoding)
        if content.decode(encoding) != file.getvalue():
            raise UnicodeError
    except UnicodeError:
        content, encoding = file.getvalue().encode(), "utf-8"
    named = encoding if encoding in ("cp1252", "shift_jis", "gb18030") else "auto"
    return Written(truth, f"t.{kind}", content, named)


def check_reading(table):
    """Read a table beside its images, and compare with what it says."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in table.truth:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()
        (folder / table.name).write_bytes(table.content)
        index = list_images(folder / table.name, columns=Columns(encoding=table.encoding))
        assert {name: label for name, _, label in index.rows()} == table.truth
        assert set(index.class_names) == set(table.truth.values())
        assert index.layout.kind == "table"
        assert not index.task.multilabel


@pytest.mark.fuzz
@pytest.mark.parametrize("many", [60, pytest.param(2_000, marks=pytest.mark.slow)])
def test_a_table_says_the_same_in_every_shape(many):
    number = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(2**32) if many > 100 else 5))
    print(f"FUZZ_SEED={number}")
    usual = settings(max_examples=many, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    seed(number)(usual(given(written_tables())(check_reading)))()


SPOILS = (
    *(bytes([byte]) for byte in b"\0\xff\"',;\t|\n\r {}[]\\/~10"),
    *(b"\xfe\xff", b"../", b"\x1b[2J", "\u202e".encode(), "🐜".encode(), b"://", b"NaN", b"image", b"label"),
    *(b"x" * 140_000, b"," * 3_000, b"[" * 100_000),
)


def spoiled(chance, content):
    """Return the content of a table with some of it cut out, doubled, or replaced."""
    for _ in range(chance.randint(1, 4)):
        start = chance.randint(0, len(content))
        end = min(len(content), start + chance.choice((0, 0, 1, 5, 40)))
        piece = chance.choice((*SPOILS, b"", content[start:end] * 2))
        content = content[:start] + piece + content[end:]
    return content


@pytest.mark.fuzz
@pytest.mark.parametrize("many", [150, pytest.param(8_000, marks=pytest.mark.slow)])
def test_a_spoiled_table_is_read_or_refused_and_never_anything_else(many, tmp_path):
    number = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(2**32) if many > 1_000 else 7))
    print(f"FUZZ_SEED={number}")
    chance = random.Random(number)
    rows = [("a.png", "cat"), ("b.png", "dog"), ("images/c.png", "cat"), ("d e.png", "dog")] * 2
    (tmp_path / "images").mkdir()
    for file, _ in rows:
        (tmp_path / file).touch()
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    start = {
        "t.csv": "\n".join(["image,label", *(f"{f},{label}" for f, label in rows)]),
        "t.tsv": "\n".join(f"{f}\t{label}" for f, label in rows),
        "t.txt": "\n".join(f"{f} {label}" for f, label in rows),
        "t.json": json.dumps([{"image": f, "label": label} for f, label in rows]),
        "f.json": json.dumps(dict(rows)),
        "t.jsonl": "\n".join(json.dumps({"image": f, "label": label}) for f, label in rows),
        "h.csv": "\n".join(["image,cat,dog", *(f"{f},{n % 2},{1 - n % 2}" for n, (f, _) in enumerate(rows))]),
    }
    for turn in range(many):
        name, text = chance.choice(list(start.items()))
        content = spoiled(chance, text.encode(chance.choice(("utf-8", "utf-8", "utf-16"))))
        (tmp_path / name).write_bytes(content)
        try:
            list_images(tmp_path / name)
        except FinetuneError as error:
            said = str(error)
            assert len(said) < 8_000, (number, turn, name)
            assert not any(ord(character) < 32 and character != "\n" for character in said), (number, turn)
        (tmp_path / name).unlink()
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
