"""Measure how often `finetune curve` is right: foretell the whole from half of it, on many random splits.

    python benchmarks/curve.py DATA... [--splits 40] [--arch timm:tf_efficientnet_lite0] [--size 128]

DATA are folders with class folders, or with train/ and val/ that hold them, or builtin:digits. The features
of all images are computed once. For each split a quarter of the images is held out at random, to judge on;
from a random half of the rest the accuracy of all of the rest is foretold, and compared with what it is.

A line is one data set: the images of half and whole, the measured accuracy of the whole and the foretold one
(mean over the splits, in percent), the mean difference without its sign and the mean width of the 80%
interval (in points), and in how many percent of the splits the measured accuracy was inside; then the same
share for single classes with at least ten held-out images.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from finetune.analysis.learning_curve import LEAST_JUDGED, Curve, Size, draw_part, fit_curve, measure
from finetune.config.load import parse_config
from finetune.experiment.build import build_experiment
from finetune.experiment.image_features import image_features
from finetune.experiment.read_data import read_data

COLUMNS = ("half → whole", "accuracy", "foretold", "off by", "width", "inside", "of classes")


class Outcome(NamedTuple):
    """One split."""

    measured: float
    foretold: float
    low: float
    high: float
    classes: list[bool]
    """whether the measured accuracy of each class was inside"""


def main() -> None:
    """Print a line for each data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+")
    parser.add_argument("--splits", type=int, default=40)
    parser.add_argument("--arch", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    print(f"{options.arch}, {options.size} px\n")
    print(f"| {options.splits} splits | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}", flush=True)
    for data in options.data:
        features, targets = features_of(data, options.arch, options.size)
        outcomes = [split_once(features, targets, seed) for seed in range(options.splits)]
        whole = len(targets) - len(targets) // 4
        inside = [one.low <= one.measured <= one.high for one in outcomes]
        of_class = [hit for one in outcomes for hit in one.classes]
        cells = [
            f"{whole // 2:,} → {whole:,}",
            f"{100 * np.mean([one.measured for one in outcomes]):.1f}",
            f"{100 * np.mean([one.foretold for one in outcomes]):.1f}",
            f"{100 * np.mean([abs(one.measured - one.foretold) for one in outcomes]):.1f}",
            f"{100 * np.mean([one.high - one.low for one in outcomes]):.1f}",
            f"{100 * np.mean(inside):.0f}%",
            f"{100 * np.mean(of_class):.0f}% of {len(of_class)}",
        ]
        print(f"| {Path(data).name} | {' | '.join(cells)} |", flush=True)


def features_of(data: str, arch: str, size: int) -> tuple[Tensor, Tensor]:
    """Return the features and classes of all images."""
    values = {
        "precision": "float32",
        "data": {"path": data, "image_size": size, "batch_size": 32},
        "model": {"arch": arch, "weights": "default"},
    }
    config = parse_config(json.dumps(values), "config", [])
    experiment = build_experiment(config, torch.device("cpu"), read_data(config))
    parts = [image_features(experiment, split) for split in ("train", "val")]
    return torch.cat([part.features for part in parts]), torch.cat([part.targets for part in parts])


def split_once(features: Tensor, targets: Tensor, seed: int) -> Outcome:
    """Foretell the whole of a random split from half of it."""
    classes = int(targets.max()) + 1
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    held_out, whole = order[: len(targets) // 4], order[len(targets) // 4 :]
    judged = features[held_out], targets[held_out]
    half = whole[draw_part(targets[whole], len(whole) // 2, np.random.default_rng(seed))]
    sizes = measure((features[half], targets[half]), judged, classes)
    (*_, last) = measure((features[whole], targets[whole]), judged, classes)
    (expected,) = foretold(sizes, len(whole)).forecast
    return Outcome(
        float(last.right.mean()),
        expected.accuracy,
        expected.low,
        expected.high,
        list(classes_inside(sizes, last, judged[1])),
    )


def classes_inside(sizes: list[Size], last: Size, wanted: Tensor) -> Iterator[bool]:
    """Tell for each class with enough images whether its accuracy is in the interval of its own curve."""
    for target in range(int(wanted.max()) + 1):
        own = (wanted == target).numpy()
        if own.sum() >= LEAST_JUDGED:
            of_class = [Size(size.images, size.right[:, own]) for size in sizes]
            (expected,) = foretold(of_class, last.images).forecast
            yield bool(expected.low <= last.right[:, own].mean() <= expected.high)


def foretold(sizes: list[Size], images: int) -> Curve:
    """Return the curve of some sizes, and what it expects of so many images."""
    return fit_curve(sizes, [images])


if __name__ == "__main__":
    main()
