"""Print what a metadata column brings, for README.md and docs/metadata.md.

    python benchmarks/metadata.py                  # ten minutes on two cores
    python benchmarks/metadata.py --seeds 1
    python benchmarks/metadata.py --rows shuffled  # those that are called so

The pictures of builtin:turned-digits are written as PNG files beside tables. In these the `site` column is
as it is, lacks a third of its cells, is shuffled over all rows so that it says nothing, or holds a random
number. A fifth of each class validates; each seed also draws another split, other missing cells, another
shuffle and other numbers. All else is configs/quickstart.yaml. Scores are those of the best epoch, in
percent, as the median of the seeds with the lowest and highest in brackets. A six and a nine look the same
there: without the column nobody could be right about more than about half of them, nor with it about more
than 95%, which is how often the site is right.
"""

import csv
import json
import random
import statistics
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from seeds import FIRST, parser_with_seeds, print_head, print_row

from finetune.cli import load_app
from finetune.data.builtin import turned_digits

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
MISSING = 1 / 3

ROWS = (
    ("the image alone", "as it is", None, ()),
    ("with `site`", "as it is", "as it is", ()),
    ("with `site`, a third of the cells missing", "gaps", "gaps", ()),
    ("trained with `site`, evaluated without", "as it is", "none", ()),
    ("with `site` shuffled", "shuffled", "shuffled", ()),
    ("trained with a random number, evaluated without", "number", "none", ()),
    ("the same, `metadata_dropout: 0`", "number", "none", ("model.head.metadata_dropout=0",)),
)
"""What a row is called, the table to train on, the one to score on (None: no metadata), other settings."""

COLUMNS = ("accuracy", "accuracy of 6 and 9")


def write_tables(folder: Path, seed: int) -> None:
    """Write the pictures, and a table for each state of the column with the same split in all."""
    rows = turned_digits.rows()
    chance = random.Random(seed)
    sites = [site for _, _, site in rows]
    columns = {
        "as it is": sites,
        "gaps": ["" if chance.random() < MISSING else site for site in sites],
        "shuffled": chance.sample(sites, len(sites)),
        "none": [""] * len(sites),
        "number": [f"{random.Random(f'{seed} {row}').gauss(50, 10):.1f}" for row in range(len(rows))],
    }
    splits = split_by_class([label for _, label, _ in rows], chance)
    (folder / turned_digits.FOLDER).mkdir()
    for name, _, _ in rows:
        turned_digits.load_image(name).save(folder / f"{name}.png")
    for state, cells in columns.items():
        with open(folder / f"{state}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow((*turned_digits.HEADER, "split"))
            for (name, label, _), site, split in zip(rows, cells, splits, strict=True):
                writer.writerow((f"{name}.png", label, site, split))


def split_by_class(labels: list[str], chance: random.Random) -> list[str]:
    """Return a fifth of each class to validation."""
    splits = ["train"] * len(labels)
    for name in sorted(set(labels)):
        members = [position for position, label in enumerate(labels) if label == name]
        for position in chance.sample(members, len(members) // 5):
            splits[position] = "val"
    return splits


def run_command(*arguments: str) -> str:
    """Run a command of finetune; give what it prints on stdout."""
    out = StringIO()
    with redirect_stdout(out), redirect_stderr(StringIO()):
        load_app()(list(arguments), standalone_mode=False)
    return out.getvalue()


def scores(row: tuple[str, str, str | None, tuple[str, ...]], seed: int) -> tuple[float, ...]:
    """Train once, and score the best epoch; in the order of the columns, in percent."""
    _, train, score, overrides = row
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tables(folder, seed)
        columns = "{split: split}" if score is None else "{split: split, metadata: [site]}"
        settings = (
            f"data.path={folder / f'{train}.csv'}",
            f"data.columns={columns}",
            f"seed={seed}",
            *overrides,
        )
        run_command("train", str(CONFIG), "--run-dir", str(folder / "run"), *settings)
        table = folder / f"{score or train}.csv"
        outcome = json.loads(run_command("evaluate", str(folder / "run"), str(table), "--json"))
    alike = statistics.mean(outcome["per_class"][digit]["recall"] for digit in (6, 9))
    return 100 * outcome["accuracy"], 100 * alike


def main() -> None:
    """Train every row with every seed, and print the table."""
    parser = parser_with_seeds(__doc__)
    parser.add_argument("--rows", default="")
    arguments = parser.parse_args()
    print_head(arguments.seeds, COLUMNS)
    for row in (row for row in ROWS if arguments.rows in row[0]):
        print_row(row[0], [scores(row, FIRST + number) for number in range(arguments.seeds)])


main()
