"""Measure what `finetune labels` finds of wrong labels, and what corrections gain, on photographs.

    python benchmarks/labels.py FOLDER... [--seeds 3] [--share 0.08] [--arch timm:tf_efficientnet_lite0]
        [--size 224]

Each folder holds train/ and val/ with one folder per class. A share of all labels is replaced by another
class at random, in a table of copies of the photographs whose shorter side has 256 pixels.

The first table has what `finetune labels` says of these labels, in percent: the area under the ROC curve of
the doubt, precision and recall of cleanlab's flags, and how often the likely class of a flagged wrong label
is the right one.

The second has the accuracy on the validation photographs by their right labels, in percent, of a head alone
(30 epochs, `views: eval`) that is trained and validated with: the right labels; the wrong ones among them;
these with `data.corrections` that drop what is flagged, or that give it the likely class.

Figures are medians over the seeds, with the lowest and highest in brackets. The third table has how far each
way is ahead of the one with wrong labels, in points: the mean over the seeds with its standard error.
"""

import csv
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from seeds import FIRST, parser_with_seeds, print_head, print_row
from sklearn.metrics import roc_auc_score

import finetune
from finetune.commands.labels.find import Answer, find_doubtful
from finetune.config.load import parse_config
from finetune.data.images import ImageLimits
from finetune.data.index import load_sample
from finetune.display import Display
from finetune.experiment.read_data import read_index

WRONG = "with wrong ones"
HOW = ("right labels", WRONG, "flagged ones dropped", "flagged ones to the likely class")
FOUND = ("AUROC of the doubt", "flags: precision", "recall", "likely class is right")


class Spoiled(NamedTuple):
    """A table of photographs, some with wrong labels."""

    table: Path
    right: dict[str, str]
    """the right class by name"""
    wrong: set[str]
    """names of those with a wrong one"""


def main() -> None:
    """Print both tables for each folder."""
    parser = parser_with_seeds(__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--share", type=float, default=0.08)
    parser.add_argument("--arch", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    print(f"{options.arch}, {options.size} px, {options.share:.0%} of the labels wrong")
    found: dict[str, list[tuple[float, ...]]] = {}
    accuracies: dict[str, list[tuple[float, ...]]] = {}
    for folder in options.folders:
        with tempfile.TemporaryDirectory() as place:
            photographs = Path(place) / "photographs"
            shrink(folder.absolute(), photographs)
            for seed in range(FIRST, FIRST + options.seeds):
                work = Path(place) / str(seed)
                work.mkdir()
                spoiled = spoil(photographs, work, options.share, seed)
                config = config_of(spoiled.table, options.arch, options.size, seed)
                answer = judge(config)
                found.setdefault(folder.name, []).append(score(answer, spoiled))
                trained = tuple(train_all(photographs, work, config, spoiled, answer))
                accuracies.setdefault(folder.name, []).append(trained)
    for columns, rows in ((FOUND, found), (HOW, accuracies)):
        print()
        print_head(options.seeds, columns)
        for name, outcomes in rows.items():
            print_row(name, outcomes)
    print_gains(options.seeds, accuracies)


def print_gains(seeds: int, accuracies: dict[str, list[tuple[float, ...]]]) -> None:
    """Print how far each way of training is ahead of the one with wrong labels, seed by seed."""
    print()
    ways = [way for way in HOW if way != WRONG]
    print_head(seeds, [f"gain: {way}" for way in ways])
    for name, outcomes in accuracies.items():
        values = np.array(outcomes)
        gains = values[:, [HOW.index(way) for way in ways]] - values[:, [HOW.index(WRONG)]]
        errors = gains.std(axis=0, ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else 0 * gains[0]
        cells = [f"{gain:+.1f} ± {error:.1f}" for gain, error in zip(gains.mean(axis=0), errors, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


def shrink(folder: Path, place: Path) -> None:
    """Copy the photographs so that their shorter side has 256 pixels: each is read many times."""
    index = read_index(config_from({"data": {"path": str(folder)}}))
    for sample in index.samples:
        image = load_sample(index, sample, ImageLimits())
        scale = 256 / min(image.size)
        target = place / Path(sample.name).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        size = [max(1, round(scale * side)) for side in image.size]
        image.resize((size[0], size[1]), Image.Resampling.LANCZOS).save(target, quality=95)


def spoil(folder: Path, place: Path, share: float, seed: int) -> Spoiled:
    """Write a table of the photographs of a folder in which a share of the labels is wrong."""
    index = read_index(config_from({"data": {"path": str(folder)}}))
    samples = [sample for sample in index.samples if sample.split != "test"]
    random = np.random.default_rng(seed)
    chosen = set(random.choice(len(samples), round(share * len(samples)), replace=False).tolist())
    right, given = {}, {}
    for number, sample in enumerate(samples):
        name, own = str(folder / sample.name), sample.target
        right[name] = index.class_names[own]
        other = (own + int(random.integers(1, len(index.class_names)))) % len(index.class_names)
        given[name] = index.class_names[other if number in chosen else own]
    split = {str(folder / sample.name): sample.split for sample in samples}
    for table, labels in (("right.csv", right), ("wrong.csv", given)):
        rows = [(name, labels[name], split[name]) for name in right]
        write_table(place / table, ("image", "label", "split"), rows)
    return Spoiled(place / "wrong.csv", right, {name for name in right if given[name] != right[name]})


def config_of(table: Path, arch: str, size: int, seed: int) -> dict[str, Any]:
    """Return the config of a head that is trained to its end."""
    frozen = {"name": "frozen", "train": "head", "epochs": 30, "lr": 3e-3, "views": "eval"}
    return {
        "seed": seed,
        "data": {"path": str(table), "image_folder": "/", "batch_size": 32, "image_size": size},
        "model": {"arch": arch, "weights": "default"},
        "stages": [frozen],
    }


def config_from(values: dict[str, Any]) -> Any:
    """Check a config that is a dictionary."""
    return parse_config(json.dumps(values), "config", [])


def judge(config: dict[str, Any]) -> Answer:
    """Judge the labels of a table."""
    with open("/dev/null", "w") as nowhere:
        return find_doubtful(config_from(config), Display(nowhere, quiet=True))


def score(answer: Answer, spoiled: Spoiled) -> tuple[float, ...]:
    """Return what `FOUND` names, in percent."""
    names = {image.sample.name: absolute(image.sample.name) for image in answer.images}
    wrong = [names[image.sample.name] in spoiled.wrong for image in answer.images]
    flagged = [image.flagged for image in answer.images]
    hits = [image for image, bad in zip(answer.images, wrong, strict=True) if bad and image.flagged]
    right = [image.likely == spoiled.right[names[image.sample.name]] for image in hits]
    return (
        100 * float(roc_auc_score(wrong, [image.doubt for image in answer.images])),
        100 * len(hits) / max(sum(flagged), 1),
        100 * len(hits) / sum(wrong),
        100 * sum(right) / max(len(right), 1),
    )


def train_all(
    folder: Path, place: Path, config: dict[str, Any], spoiled: Spoiled, answer: Answer
) -> Iterator[float]:
    """Train in each way that `HOW` names; return the accuracy by right labels in percent."""
    flagged = [image for image in answer.images if image.flagged]
    write_table(place / "drop.csv", ("image", "decision"), [(i.sample.name, "drop") for i in flagged])
    write_table(place / "likely.csv", ("image", "decision"), [(i.sample.name, i.likely) for i in flagged])
    for number, change in enumerate(
        (
            {"data.path": str(place / "right.csv")},
            {},
            {"data.corrections": str(place / "drop.csv")},
            {"data.corrections": str(place / "likely.csv")},
        )
    ):
        run = finetune.train(config, overrides=change, run_dir=place / f"run{number}", quiet=True)
        scores = finetune.evaluate(run, folder, split="val", quiet=True)
        yield 100 * scores.accuracy


def absolute(name: str) -> str:
    """Return the path of a photograph by its name below the root folder."""
    return name if name.startswith("/") else f"/{name}"


def write_table(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Write a CSV file."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


if __name__ == "__main__":
    main()
