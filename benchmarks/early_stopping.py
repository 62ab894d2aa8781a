"""Measure what it costs to stop a one-cycle stage early, against training on and against a shorter cycle.

    python benchmarks/early_stopping.py                     # about twenty minutes on two cores
    python benchmarks/early_stopping.py few --seeds 2

Each case is a shipped config whose last stage is longer. A stage that stops early has been trained, bit for
bit, as the beginning of the whole one, so that where each patience stops, and what it has by then, is read
from the history of the whole. Then the same is trained with a cycle only as long as the stopped one was.

A line is one patience: how many epochs the last stage had when it stopped, and the validation images' loss
and error of the best model of the run (by `monitor: val_loss`), as the median over the seeds with the lowest
and highest in brackets.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from seeds import summary

from finetune.training.early_stopping import EarlyStopping, find_stop

CONFIGS = Path(__file__).parents[1] / "configs"
PATIENCES = (1, 2, 3, 5, 8)

# Name, config, epochs of its stage `unfrozen`.
CASES = {"quickstart": ("quickstart.yaml", 24), "few images": ("few_images.yaml", 40)}


@cache
def train(config: str, seed: int, epochs: int) -> list[dict[str, str]]:
    """Train once with so many epochs in the last stage; give the history."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "finetune", "train", str(CONFIGS / config), "--run-dir", str(run)]
        command += [f"seed={seed}", f"stages.unfrozen.epochs={epochs}"]
        subprocess.run(command, check=True, capture_output=True)
        with open(run / "history.csv", encoding="utf-8") as file:
            return list(csv.DictReader(file))


def stopping_epoch(history: list[dict[str, str]], patience: int) -> int:
    """Return the epoch of the last stage after which it stops, or its last one."""
    values = [float(row["val_loss"]) for row in history if row["stage"] == "unfrozen"]
    rule = EarlyStopping("val_loss", patience, min_delta=0.0, pct_start=0.25)
    stops = (find_stop("unfrozen", values[:done], len(values), rule) for done in range(1, len(values)))
    return next((stop.epoch for stop in stops if stop is not None), len(values))


def best(history: list[dict[str, str]], epochs: int) -> tuple[float, float]:
    """Return loss and error in percent of the best model, where the last stage had so many epochs."""
    rows = [row for row in history if row["stage"] != "unfrozen" or int(row["epoch"]) <= epochs]
    row = min(rows, key=lambda row: float(row["val_loss"]))
    return float(row["val_loss"]), 100 - 100 * float(row["val_accuracy"])


def line(title: str, epochs: list[float], outcomes: list[tuple[float, float]]) -> str:
    """Write a line of the table."""
    losses, errors = zip(*outcomes, strict=True)
    cells = (summary(epochs, 0), summary(list(losses), 4), summary(list(errors), 2))
    return f"| {title} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print a table for each case whose name begins with an argument."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="beginnings of names; all where none is given")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    seeds = range(42, 42 + arguments.seeds)
    for name, (config, epochs) in CASES.items():
        if arguments.names and not any(name.startswith(start) for start in arguments.names):
            continue
        print(
            f"\n| {name}, {arguments.seeds} seeds | epochs | val loss | errors, % |\n|---|---|---|---|",
            flush=True,
        )
        whole = {seed: train(config, seed, epochs) for seed in seeds}
        print(line("the whole cycle", [epochs], [best(whole[seed], epochs) for seed in seeds]), flush=True)
        for patience in PATIENCES:
            stops = {seed: stopping_epoch(whole[seed], patience) for seed in seeds}
            stopped = [best(whole[seed], stops[seed]) for seed in seeds]
            print(line(f"`patience: {patience}`", list(stops.values()), stopped), flush=True)
            short = [best(train(config, seed, stops[seed]), epochs) for seed in seeds]
            print(line("a cycle of that length", list(stops.values()), short), flush=True)


main()
