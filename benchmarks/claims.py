"""Print every accuracy that the README and the configs quote, from trainings of the shipped configs.

    python benchmarks/claims.py                   # about ten minutes on two cores
    python benchmarks/claims.py quickstart        # one of them

Each line is one config, perhaps with an override: the accuracy after each stage, of the best model, and the
seconds that `finetune train` reports, as the median of three seeds with the lowest and highest in brackets.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from seeds import summary

CONFIGS = Path(__file__).parents[1] / "configs"

# Pictures far from what the weights were trained on, and more than 500 unfrozen steps.
IMAGENET = (
    "model.arch=timm:tf_efficientnet_lite0",
    "model.weights=default",
    "data.image_size=64",
    "data.batch_size=32",
    "stages.frozen.epochs=2",
    "stages.unfrozen.epochs=12",
)

CLAIMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "quickstart": ("quickstart.yaml", ()),
    "quickstart, frozen batch norm trained": ("quickstart.yaml", ("stages.frozen.batch_norm=train",)),
    "quickstart, statistics still": ("quickstart.yaml", ("stages.unfrozen.batch_norm=auto",)),
    "digits, ImageNet weights, statistics still": (
        "quickstart.yaml",
        (*IMAGENET, "stages.unfrozen.batch_norm=still"),
    ),
    "digits, ImageNet weights, statistics move": (
        "quickstart.yaml",
        (*IMAGENET, "stages.unfrozen.batch_norm=train"),
    ),
    "few images, glyphs": ("few_images.yaml", ()),
    "few images, no weights": ("few_images.yaml", ("model.weights=none",)),
    "few images, no weights, a schedule of its own": (
        "few_images.yaml",
        (
            "model.weights=none",
            "data.batch_size=16",
            "stages=[{name: all, train: all, epochs: 40, lr: 1e-2}]",
        ),
    ),
    "metadata": ("metadata.yaml", ()),
    "metadata, without the column": ("metadata.yaml", ("data.columns.metadata=[]",)),
    "linear probe": ("linear_probe.yaml", ()),
    "gradual unfreezing": ("gradual_unfreezing.yaml", ()),
}


def train(config: str, overrides: tuple[str, ...], seed: int) -> dict[str, float]:
    """Train once; give the accuracy after each stage, of the best model, and the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "finetune", "train", str(CONFIGS / config), "--run-dir", str(run)]
        command += ["--json", f"seed={seed}", *overrides]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        outcome = json.loads(output.splitlines()[-1])
        with open(run / "history.csv", encoding="utf-8") as file:
            after = {
                f"after {row['stage']}": 100 * float(row["val_accuracy"]) for row in csv.DictReader(file)
            }
    return after | {"best": 100 * outcome["val_accuracy"], "seconds": outcome["seconds"]}


def main() -> None:
    """Run the claims whose names begin with what the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="beginnings of names; all where none is given")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    for name, (config, overrides) in CLAIMS.items():
        if arguments.names and not any(name.startswith(start) for start in arguments.names):
            continue
        outcomes = [train(config, overrides, seed) for seed in range(42, 42 + arguments.seeds)]
        figures = ", ".join(f"{key} {summary([o[key] for o in outcomes])}" for key in outcomes[0])
        print(f"{name}: {figures}", flush=True)


main()
