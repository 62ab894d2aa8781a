"""Print what balancing is worth where classes are uneven, for docs/uneven-classes.md.

    python benchmarks/uneven_classes.py            # minutes on two cores
    python benchmarks/uneven_classes.py --seeds 1

Of the built-in digits 0 … 4 train with 120 images each and 5 … 9 with 6 each, 1 : 20; 50 other images of each
digit validate. The split is a table, given as `data.val`. All else is configs/quickstart.yaml, where the best
epoch is the one of the highest macro F1. Scores are those of the best epoch, in percent, as the median of the
seeds with the lowest and highest in brackets; each seed also draws another split.
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
from finetune.data.builtin import digits

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
MANY, FEW, VALIDATE = 120, 6, 50

WAYS: dict[str, tuple[str, ...]] = {
    "`balance: none`": (),
    "`balance: sampler`": ("data.balance=sampler",),
    "`balance: loss`": ("data.balance=loss",),
    "`loss.name: focal`": ("loss.name=focal",),
}
COLUMNS = ("accuracy", "accuracy of 5 … 9", "macro F1")


def write_split(path: Path, seed: int) -> None:
    """Write the table that says which digits train and which validate."""
    _, targets = digits.load_digits()
    names = digits.sample_names()
    rows = []
    for digit in range(10):
        members = [name for name, target in zip(names, targets, strict=True) if target == digit]
        random.Random(f"{seed} {digit}").shuffle(members)
        number = MANY if digit < 5 else FEW
        rows += [(name, "val") for name in members[:VALIDATE]]
        rows += [(name, "train") for name in members[VALIDATE : VALIDATE + number]]
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "split"), *rows])


def train(overrides: tuple[str, ...], seed: int) -> tuple[float, ...]:
    """Train once; give the scores in the order of the columns, in percent."""
    with tempfile.TemporaryDirectory() as folder:
        run, split = Path(folder) / "run", Path(folder) / "split.csv"
        write_split(split, seed)
        command = ["train", str(CONFIG), "--run-dir", str(run)]
        command += [f"seed={seed}", f"data.val={split}", "monitor=val_macro_f1", *overrides]
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            load_app()(command, standalone_mode=False)
        scores = json.loads((run / "report.json").read_text(encoding="utf-8"))["val"]
    rare = statistics.mean(scores["per_class"][digit]["recall"] for digit in range(5, 10))
    return tuple(100 * share for share in (scores["accuracy"], rare, scores["macro_f1"]))


def main() -> None:
    """Train every way with every seed, and print the table."""
    seeds = parser_with_seeds(__doc__).parse_args().seeds
    print_head(seeds, COLUMNS)
    for way, overrides in WAYS.items():
        print_row(way, [train(overrides, FIRST + number) for number in range(seeds)])


main()
