"""Compare `finetune auto` with the best of a grid that a person might try.

    python benchmarks/auto.py FOLDER… [--minutes M] [--archs NAME…] [--sizes PIXELS…] [--save FILE]
                              [--times]

Each folder holds train/ and val/ with one folder per class. The grid is every network at every image size
with the schedule of configs/photographs.yaml, the best that is known; `auto` gets a number of minutes for all
that it does. Printed for each folder: the accuracy of each training on the validation images with its
standard error, with --times its seconds (on a machine that does nothing else), and the regret of `auto` in
points: how far it is behind the best of the grid, with the standard error of that by paired images. The best
of several noisy accuracies looks better than it is, so that the regret is rather too large. What `--save`
finds in its file is not measured again.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import finetune
from finetune.analysis.uncertainty import standard_error

CONFIG = Path(__file__).parents[1] / "configs" / "photographs.yaml"
ARCHS = [f"timm:tf_efficientnet_lite{number}" for number in range(3)]

Row = dict[str, Any]


def main() -> None:
    """Print a table for each folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--archs", nargs="+", default=ARCHS)
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 192])
    parser.add_argument("--save", type=Path)
    parser.add_argument("--times", action="store_true")
    options = parser.parse_args()
    known: dict[str, Row] = (
        json.loads(options.save.read_text()) if options.save and options.save.exists() else {}
    )

    def measured(key: str, measure: Any, *arguments: Any) -> Row:
        if key not in known:
            known[key] = measure(*arguments)
            if options.save:
                options.save.write_text(json.dumps(known))
        return known[key]

    for folder in options.folders:
        auto = measured(f"{folder.name} auto {options.minutes}", run_auto, folder, options.minutes)
        grid = [
            measured(f"{folder.name} {arch} {size}", train, folder, arch, size)
            for arch in options.archs
            for size in options.sizes
        ]
        show(folder.name, auto, grid, times=options.times)


def run_auto(folder: Path, minutes: float) -> Row:
    """Let `finetune auto` choose and train."""
    with tempfile.TemporaryDirectory() as scratch:
        target, run = Path(scratch) / "chosen.yaml", Path(scratch) / "run"
        command = [sys.executable, "-m", "finetune", "auto", str(folder), "--minutes", str(minutes), "--json"]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, "--output", str(target), "--run-dir", str(run)], capture_output=True, text=True
        )
        seconds = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        chosen = json.loads(done.stdout)
        name = f"auto: {chosen['arch']}, {chosen['image_size']} px, lr {chosen['lr']}"
        return {"name": name, "right": right(run, folder), "seconds": seconds}


def train(folder: Path, arch: str, size: int) -> Row:
    """Train one network at one size, as a person would who knows the schedule."""
    with tempfile.TemporaryDirectory() as scratch:
        overrides = {
            "data.path": str(folder),
            "model.arch": arch,
            "data.image_size": size,
            "data.on_bad_image": "skip",
        }
        began = time.perf_counter()
        run = Path(scratch) / "run"
        finetune.train(str(CONFIG), run_dir=run, overrides=overrides, quiet=True)
        seconds = time.perf_counter() - began
        return {"name": f"{arch}, {size} px", "right": right(run, folder), "seconds": seconds}


def right(run: Path, folder: Path) -> list[float]:
    """Return which validation images the model of a run classifies right."""
    with (run / "split.csv").open(encoding="utf-8") as file:
        held_out = [(row["image"], row["class"]) for row in csv.DictReader(file) if row["split"] == "val"]
    answers = finetune.load(run).predict([folder / name for name, _ in held_out])
    return [float(answer.label == label) for answer, (_, label) in zip(answers, held_out, strict=True)]


def show(title: str, auto: Row, grid: list[Row], *, times: bool) -> None:
    """Print the accuracies, and how far `auto` is behind the best of the grid."""
    columns = [title, "accuracy", *(["seconds"] if times else [])]
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for row in sorted([auto, *grid], key=lambda row: -sum(row["right"])):
        values = 100 * torch.tensor(row["right"])
        cells = [row["name"], f"{float(values.mean()):.1f} ± {standard_error(values):.1f}%"]
        cells += [f"{row['seconds']:.0f}"] if times else []
        print(f"| {' | '.join(cells)} |")
    best = max(grid, key=lambda row: sum(row["right"]))
    behind = 100 * (torch.tensor(best["right"]) - torch.tensor(auto["right"]))
    error = standard_error(behind)
    print(f"\nregret of auto: {float(behind.mean()):.1f} ± {error:.1f} points ({len(behind)} images)")


if __name__ == "__main__":
    main()
