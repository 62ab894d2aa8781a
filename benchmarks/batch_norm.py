"""Compare what the running statistics of a pretrained backbone's batch norm can do in the unfrozen stage.

    python benchmarks/batch_norm.py FOLDER... [--seeds 3] [--arch ...] [--size 128] [--batch 32]
        [--frozen 1] [--epochs 4]

Folders and options as for `benchmarks/photographs.py`, whose table is printed, without fastai. Each variant
is a change of what `ImageClassifier.freeze` leaves; only the first and the second can be had from a config.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import photographs
import torch
from torch import nn

from finetune.data.images.decode import read_image
from finetune.data.images.limits import ImageLimits
from finetune.data.loading.transforms import eval_transform
from finetune.model.classifier import ImageClassifier
from finetune.model.units import has_statistics


def norms(module: nn.Module) -> list[nn.Module]:
    """Return the layers of a module that keep running statistics."""
    return list(filter(has_statistics, module.modules()))


def moving(model: ImageClassifier, _images: list[Path]) -> None:
    """Let the statistics move in the groups that train, and nowhere else."""
    model._statistics_still = False


def slowly(model: ImageClassifier, images: list[Path]) -> None:
    """Let them move with a tenth of the usual momentum."""
    moving(model, images)
    for module in norms(model.backbone):
        module.momentum = 0.01


def late_only(model: ImageClassifier, images: list[Path]) -> None:
    """Let them move in the late group of the backbone alone."""
    moving(model, images)
    early = [module for module in model.layer_groups[0].modules() if has_statistics(module)]
    for module in early:  # in eval mode whatever mode the model is set to
        module.train = partial(_stay_in_eval, module)  # type: ignore[method-assign]


def _stay_in_eval(module: nn.Module, _mode: bool = True) -> nn.Module:
    return nn.Module.train(module, False)


def estimated_once(model: ImageClassifier, images: list[Path]) -> None:
    """Estimate them anew from the training images, once before everything trains, and keep them then."""
    if model._frozen:
        return
    transform = eval_transform(model.preprocessing)
    pixels = torch.stack([transform(read_image(path, ImageLimits())) for path in images])
    for module in norms(model.backbone):
        module.reset_running_stats()
        module.momentum = None  # a plain mean over the batches
        module.training = True
    with torch.no_grad():
        for batch in pixels[torch.randperm(len(pixels))].split(32):
            model.features(batch)


VARIANTS: dict[str, Callable[[ImageClassifier, list[Path]], None]] = {
    "still": lambda model, images: None,
    "moving where groups train": moving,
    "moving with momentum 0.01": slowly,
    "moving in the late group only": late_only,
    "estimated once, then still": estimated_once,
}


def train_variant(folder: Path, setting: photographs.Setting, *, variant: str) -> photographs.Outcome:
    """Train with a variant."""
    freeze, change = ImageClassifier.freeze, VARIANTS[variant]
    images = [path for path in sorted((folder / "train").glob("*/*")) if photographs.readable(path)]

    def changed(model: ImageClassifier, *arguments: Any, **options: Any) -> None:
        freeze(model, *arguments, **options)
        change(model, images)
        model.train(model.training)

    ImageClassifier.freeze = changed  # type: ignore[method-assign]
    return photographs.train_finetune(folder, setting)


if __name__ == "__main__":
    recipes = {name: partial(train_variant, variant=name) for name in VARIANTS}
    photographs.main(recipes, __file__, __doc__)
