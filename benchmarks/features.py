"""Compare the search for a head's rate on cached features with the same search on images.

    python benchmarks/features.py FOLDER [--arch resnet18] [--weights none] [--size 128] [--batch 32]

The folder holds train/ and val/ with one folder per class. Range test and race of the frozen stage run twice:
on features of the evaluation view that are computed once, and on images that the backbone sees in each step.
Printed are the seconds of each, the pass that computes the features included, and what each suggests.
From random weights suggestions mean little, but the times are those of any weights.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch

from finetune.config.load import parse_config
from finetune.experiment import lr_search
from finetune.experiment.build import Experiment, build_experiment
from finetune.experiment.loaders import build_loaders
from finetune.experiment.read_data import read_data
from finetune.lr_finder.result import LrFindResult

CONFIG = """
data: {{path: '{path}', image_size: {size}, batch_size: {batch}, on_bad_image: skip, workers: 0}}
model: {{arch: '{arch}', weights: {weights}}}
stages: [{{name: frozen, train: head, epochs: 30, lr: auto, views: eval}}]
"""


def main() -> None:
    """Search twice, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    text = CONFIG.format(
        path=options.folder,
        size=options.size,
        batch=options.batch,
        arch=options.arch,
        weights=options.weights,
    )
    config = parse_config(text, "benchmark")
    experiment = build_experiment(config, torch.device("cpu"), read_data(config))
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, XDG_CACHE_HOME=cache):
        cached, seconds = search(experiment)
        with mock.patch.object(lr_search, "views_have_features", return_value=False):
            live, live_seconds = search(experiment)
    print(f"{options.arch}, {options.size} px, batches of {options.batch}, {options.folder.name}")
    print("| | seconds | live / this | picked | suggestions |")
    print("|---|---|---|---|---|")
    for name, found, took in (("cached features", cached, seconds), ("images", live, live_seconds)):
        suggestions = ", ".join(f"{one.heuristic} {one.lr:.2g}" for one in found.suggestions if one.lr)
        print(f"| {name} | {took:.1f} | {live_seconds / took:.1f} | {found.lr} | {suggestions} |")


def search(experiment: Experiment) -> tuple[LrFindResult, float]:
    """Return what a search for the rate of the first stage finds, and the seconds that it took."""
    began = time.perf_counter()
    found = lr_search.find_lr(experiment, 0, build_loaders(experiment))
    return found, time.perf_counter() - began


if __name__ == "__main__":
    main()
