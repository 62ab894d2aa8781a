"""Measure what a sweep over the head takes, and whether it beats the recipe that it starts from.

    python benchmarks/sweep.py FOLDER... [--trials 12] [--seeds 3] [--samplers tpe random]
        [--arch timm:tf_efficientnet_lite0] [--size 128]

Each folder holds train/ and val/ with one folder per class. A sweep sees train/ alone, of which it holds out
a fifth to choose on; its first trial is the recipe itself: the head on cached features, 30 epochs. val/
judges the recipe, and the best trial by each sampler's sweep. Each seed has sweeps of its own, with another
split and start.

Printed for each folder: the seconds of a trial (median, of all but the first of a seed, which computes the
features), by the clock, and the CPU time of the whole sweep for each trial; the accuracy of the recipe and of
the best trials, on the images that chose and on those that judge; and the differences on the latter with
their standard errors by paired images.
"""

import argparse
import itertools
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photographs import spread

BASE = """
seed: {seed}
data: {{path: {path}, val: 0.2, image_size: {size}, batch_size: 32,
       on_bad_image: skip, max_bad_fraction: 0.05}}
model: {{arch: "{arch}"}}
stages:
  - {{name: frozen, train: head, epochs: 30, lr: 3e-3, views: eval}}
"""
SWEEP = """
base: base.yaml
trials: {trials}
sampler: {sampler}
space:
  stages.frozen.lr: {{log: [3e-4, 3e-2]}}
  optimizer.weight_decay: {{log: [1e-3, 0.3]}}
  model.head.hidden: [[], [256], [512]]
  loss.label_smoothing: {{uniform: [0, 0.2]}}
"""


SAMPLERS = {"tpe": "{{name: tpe, seed: {seed}, startup: 5}}", "random": "{{name: random, seed: {seed}}}"}
RECIPE = "recipe"


@dataclass
class Outcome:
    """What the sweeps of one seed came to."""

    seconds: list[float]
    """of each trial but the first, by the clock"""
    cpu: list[float]
    """seconds of a trial, of the whole process of each sweep"""
    chosen_by: dict[str, float]
    """accuracy on the images that chose, of the recipe and of the best trial of each sampler"""
    right: dict[str, list[bool]]
    """whether these are right, for each image that judges"""


def main() -> None:
    """Print a paragraph for each folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=[*SAMPLERS])
    parser.add_argument("--arch", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    print(
        f"{options.arch}, {options.size} px, the head alone, {options.trials} trials, {options.seeds} seeds"
    )
    for folder in options.folders:
        show(folder.name, [run(folder.resolve(), options, seed) for seed in range(options.seeds)])


def run(folder: Path, options: argparse.Namespace, seed: int) -> Outcome:
    """Run a sweep by each sampler, and judge the recipe, which is the first trial, and their best trials."""
    outcome = Outcome([], [], {}, {})
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        base = BASE.format(seed=seed, path=folder / "train", size=options.size, arch=options.arch)
        (place / "base.yaml").write_text(base)
        for sampler in options.samplers:
            written = SAMPLERS[sampler].format(seed=seed)
            (place / "sweep.yaml").write_text(SWEEP.format(trials=options.trials, sampler=written))
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            result = finetune(place, "sweep", "sweep.yaml", "--sweep-dir", sampler, "--json")
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            trials = result["trials"]
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            outcome.cpu.append(used / len(trials))
            outcome.seconds += [trial["seconds"] for trial in trials[1:]]
            for name, trial in ((RECIPE, trials[0]), (sampler, trials[result["best"]])):
                if name not in outcome.right:
                    outcome.chosen_by[name] = trial["value"]
                    outcome.right[name] = judge(place, trial["run_dir"], folder / "val")
    return outcome


def judge(place: Path, run_dir: str, folder: Path) -> list[bool]:
    """Return whether a run is right about each image of a folder, in their order."""
    answers = finetune(place, "predict", run_dir, folder, "--json", "--ignore-errors")
    return [
        Path(one["image"]).parent.name == one["predictions"][0]["class"]
        for one in answers
        if one["error"] is None
    ]


def finetune(place: Path, *arguments: object) -> Any:
    """Run a command, and return the last line that it prints as JSON."""
    command = [sys.executable, "-m", "finetune", *map(str, arguments)]
    environment = os.environ | {
        "XDG_CACHE_HOME": str(place / "cache")
    }  # another sweep's features are not here
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def show(name: str, outcomes: list[Outcome]) -> None:
    """Print what the sweeps of a folder came to."""
    later = [seconds for outcome in outcomes for seconds in outcome.seconds]
    cpu = statistics.mean(used for outcome in outcomes for used in outcome.cpu)
    print(f"\n{name}: a trial takes {statistics.median(later):.1f} s by the clock, {cpu:.1f} s of CPU time")
    for what in outcomes[0].right:
        chosen = [100 * outcome.chosen_by[what] for outcome in outcomes]
        judged = [100 * statistics.mean(outcome.right[what]) for outcome in outcomes]
        who = what if what == RECIPE else f"best by {what}"
        print(f"  {who:<14}  {spread(chosen)} on the images that chose, {spread(judged)} on those that judge")
    pairs = itertools.combinations(outcomes[0].right, 2)
    for one, other in pairs:
        gains = [
            after - before
            for outcome in outcomes
            for before, after in zip(outcome.right[one], outcome.right[other], strict=True)
        ]
        error = statistics.stdev(gains) / math.sqrt(len(gains))
        ahead = f"{100 * statistics.mean(gains):+.1f} ± {100 * error:.1f} points"
        print(f"  {other} against {one}: {ahead}", flush=True)


if __name__ == "__main__":
    main()
