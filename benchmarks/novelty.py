"""Measure which of the nearest training images tells best what is unlike them, by how many a class has.

    python benchmarks/novelty.py FOLDER FOLDER... [--arch timm:tf_efficientnet_lite0] [--size 128]

Each folder holds train/ and val/ with one folder per class. The features are those of a pretrained backbone
that was not trained further. From the training images of a folder some of each class are taken, five times
by chance, and asked about its own validation images and those of the other folders: the area under the curve
of the distances (0.5 is chance), how many of the others are unlike, and how many that are known themselves.
"""

import argparse
import random
import statistics
from pathlib import Path

import torch
from photographs import readable
from sklearn.metrics import roc_auc_score
from torch import Tensor

from finetune.analysis.novelty import SHARE, KnownImages
from finetune.data.images.decode import read_image
from finetune.data.images.limits import ImageLimits
from finetune.data.loading.transforms import eval_transform
from finetune.model import ModelSpec, build_classifier

Split = tuple[Tensor, list[str]]
TAKEN = (None, 100, 30, 10, 5)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--arch", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    features = {folder: features_of(folder, options.arch, options.size) for folder in options.folders}
    print("| images a class | nearest | AUROC | others unlike | known ones unlike |\n|---|---|---|---|---|")
    for each in TAKEN:
        for nearest in (1, 2, 3):
            rows = []
            for folder, (train, (own, _)) in features.items():
                others = torch.cat([val for other, (_, (val, _)) in features.items() if other != folder])
                for seed in range(1 if each is None else 5):
                    known = train[0][some_of(train[1], each, random.Random(seed))]
                    rows.append(judge(known, own, others, nearest))
            cells = " | ".join(f"{statistics.mean(column):.3f}" for column in zip(*rows, strict=True))
            print(f"| {each or 'all'} | {nearest} | {cells} |", flush=True)


def features_of(folder: Path, arch: str, size: int) -> tuple[Split, Split]:
    """Return the features (N, D) and the classes of the training and of the validation images."""
    model = build_classifier(ModelSpec(arch, 2, image_size=size), weights="default", seed=0).eval()
    transform = eval_transform(model.preprocessing)
    splits = []
    for split in ("train", "val"):
        paths = [path for path in sorted((folder / split).glob("*/*")) if readable(path)]
        pixels = torch.stack([transform(read_image(path, ImageLimits())) for path in paths])
        with torch.inference_mode():
            found = torch.cat([model.features(batch) for batch in pixels.split(32)])
        splits.append((found.clone(), [path.parent.name for path in paths]))
    return splits[0], splits[1]


def some_of(classes: list[str], each: int | None, chance: random.Random) -> list[int]:
    """Draw some positions of each class; all of them for None."""
    taken: list[int] = []
    for name in sorted(set(classes)):
        members = [position for position, one in enumerate(classes) if one == name]
        taken += members if each is None else chance.sample(members, min(each, len(members)))
    return taken


def judge(train: Tensor, own: Tensor, others: Tensor, nearest: int) -> tuple[float, float, float]:
    """Tell others from own validation images: AUROC, and the shares of others and of known ones unlike."""
    known = KnownImages(torch.nn.functional.normalize(train.float(), dim=1), 0.0, nearest)
    near, far, itself = (known.distances(features) for features in (own, others, train))
    threshold = near.double().quantile(1 - SHARE)
    area = roc_auc_score([0] * len(near) + [1] * len(far), torch.cat([near, far]).numpy())
    return float(area), float((far > threshold).float().mean()), float((itself > threshold).float().mean())


if __name__ == "__main__":
    main()
