"""Compare the order of `finetune rank` with the order after full training.

    python benchmarks/rank.py FOLDER… [--archs NAME…] [--sizes PIXELS…] [--folds N]
                              [--config FILE] [--save FILE]

Each folder holds train/ and val/ with one folder per class; their images are put together and split anew into
folds. Every network at every image size is ranked, and trained by a config (configs/photographs.yaml), once
for each fold; its accuracy is that of all images, each judged by the model that was not trained on it. What
`--save` finds in its file is not measured again.

Printed for each folder: the accuracy of each network and size by `rank` (leave-one-out ridge regression on
all images), by `rank --val` in each fold, and after training, with standard errors. Then for each way to rank
Kendall's tau with the order after training, and the regret in points: how far the training of its first, and
the best of its first three, is behind the best training. "The larger the better" ranks by what a forward pass
costs (parameters times pixels). "Training with another fold" ranks by one fold's training and is judged by
the others: how far one training itself can tell. A last table has the same for the networks at one size.
"""

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from auto import right
from scipy.stats import kendalltau

import finetune
from finetune.analysis.uncertainty import standard_error
from finetune.commands.rank.rank import rank
from finetune.commands.settings import read_settings
from finetune.display import Display

CONFIG = Path(__file__).parents[1] / "configs" / "photographs.yaml"
ARCHS = [f"timm:tf_efficientnet_lite{number}" for number in range(3)]

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What is measured on a folder."""

    archs: list[str]
    sizes: list[int]
    folds: int
    config: Path
    save: Path | None


def main() -> None:
    """Print the tables of each folder, and of all together."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--archs", nargs="+", default=ARCHS)
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 96, 128])
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    setting = Setting(options.archs, options.sizes, options.folds, options.config, options.save)
    for folder in options.folders:
        rows = measure(folder, setting)
        show(folder.name, rows)


def measure(folder: Path, setting: Setting) -> list[Row]:
    """Rank and train every network at every size."""
    known = json.loads(setting.save.read_text()) if setting.save and setting.save.exists() else {}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        images = pooled(folder, Path(scratch) / "images")
        for arch in setting.archs:
            for size in setting.sizes:
                key = f"{folder.name} {arch} {size} {setting.folds}"
                if key not in known:
                    known[key] = outcome(setting, images, arch, size)
                    if setting.save:
                        setting.save.write_text(json.dumps(known))
                rows.append(known[key])
    return rows


def pooled(folder: Path, target: Path) -> Path:
    """Link the images of train/ and val/ into one folder per class."""
    for path in sorted(folder.glob("*/*/*")):
        link = target / path.parent.name / f"{path.parent.parent.name}-{path.name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return target


def outcome(setting: Setting, images: Path, arch: str, size: int) -> Row:
    """Rank a network at a size, and train it in every fold."""
    row: Row = {"arch": arch, "size": size, "val": [], "trained": []}
    with tempfile.TemporaryDirectory() as runs:
        shared = {
            "data.path": str(images),
            "model.arch": arch,
            "data.image_size": size,
            "data.on_bad_image": "skip",
            "output.dir": runs,
        }
        row["left_out"], row["parameters"] = score(setting.config, shared, on_val=False)
        for fold in range(1, setting.folds + 1):
            split = {"data.val": {"fold": fold, "of": setting.folds}}
            row["val"].append(score(setting.config, shared | split, on_val=True)[0])
            run = finetune.train(str(setting.config), overrides=shared | split, quiet=True)
            row["trained"].append(right(run.directory, images))
    return row


def score(path: Path, overrides: dict[str, Any], *, on_val: bool) -> tuple[list[float], int]:
    """Return which images a ridge regression classifies right, and the parameters of the backbone."""
    config = read_settings(path, [f"{key}={json.dumps(value)}" for key, value in overrides.items()])[0]
    with open(os.devnull, "w") as nothing:
        display = Display(nothing, quiet=True)
        ranking = rank(config, [config.model.arch], download=False, on_val=on_val, display=display)
    return ranking.best.per_image.tolist(), ranking.best.parameters


def mean(values: list[float]) -> float:
    """Return the mean in percent."""
    return 100 * statistics.mean(values)


def joined(folds: list[list[float]]) -> list[float]:
    """Put the images of all folds together."""
    return [value for fold in folds for value in fold]


def show(title: str, rows: list[Row]) -> None:
    """Print the accuracies, and how far each way to rank agrees with training."""
    columns = {"`rank`": "left_out", "`rank --val`": "val", "after training": "trained"}
    print(f"\n| {title} | px | {' | '.join(columns)} |")
    print("|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: -mean(joined(row["trained"]))):
        cells = []
        for key in columns.values():
            values = row[key] if key == "left_out" else joined(row[key])
            error = standard_error(torch.tensor(values))
            cells.append(f"{mean(values):.1f} ± {100 * error:.1f}%")
        print(f"| {row['arch']} | {row['size']} | {' | '.join(cells)} |")
    groups = [[row for row in rows if row["size"] == size] for size in sorted({row["size"] for row in rows})]
    show_orders(f"{title}: {len(rows)} networks and sizes ranked by", [rows])
    if min(map(len, groups)) > 1 and len(groups) > 1:
        show_orders(f"{title}: networks of one size, mean over the sizes", groups)


Pair = tuple[list[float], list[float]]
"""What a way to rank goes by, and the accuracy after training."""


def show_orders(title: str, groups: list[list[Row]]) -> None:
    """Print Kendall's tau and the regret of each way to rank, the mean over groups that are ranked alone."""
    print(f"\n| {title} | Kendall's tau | regret of the first | of the best of three |")
    print("|---|---|---|---|")
    per_group = [ways_to_rank(rows) for rows in groups]
    for name in per_group[0]:
        pairs = [pair for ways in per_group for pair in ways[name]]
        taus = [float(kendalltau(guess, real).statistic) for guess, real in pairs]
        ones, threes = zip(*(regrets(guess, real) for guess, real in pairs), strict=True)
        cells = [f"{statistics.mean(taus):.2f}", *(f"{statistics.mean(part):.1f}" for part in (ones, threes))]
        print(f"| {name} | {' | '.join(cells)} |")


def ways_to_rank(rows: list[Row]) -> dict[str, list[Pair]]:
    """Return what each way to rank goes by, and what it is compared with."""
    truth = [mean(joined(row["trained"])) for row in rows]
    folds = range(len(rows[0]["trained"]))
    others = [
        [mean(joined([right for n, right in enumerate(row["trained"]) if n != fold])) for row in rows]
        for fold in folds
    ]
    return {
        "`rank`": [([mean(row["left_out"]) for row in rows], truth)],
        "`rank --val`, one fold": [([mean(row["val"][fold]) for row in rows], truth) for fold in folds],
        "the larger the better": [([row["parameters"] * row["size"] ** 2 for row in rows], truth)],
        "training with another fold": [
            ([mean(row["trained"][fold]) for row in rows], others[fold]) for fold in folds
        ],
    }


def regrets(guess: list[float], truth: list[float]) -> tuple[float, float]:
    """Return how many points the first, and the best of the first three, are behind the best."""
    order = sorted(range(len(guess)), key=lambda position: -guess[position])
    best = max(truth)
    return best - truth[order[0]], best - max(truth[position] for position in order[:3])


if __name__ == "__main__":
    main()
