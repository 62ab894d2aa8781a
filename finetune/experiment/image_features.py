"""What a backbone makes of the images of an experiment, as evaluation shows them."""

from dataclasses import dataclass

from torch import Tensor

from finetune.analysis.ridge import target_rows
from finetune.choices import Split
from finetune.data.index import Sample
from finetune.data.loading.dataset import EvalImages
from finetune.data.loading.loaders import build_eval_loader, end_workers
from finetune.data.loading.transforms import eval_transform
from finetune.experiment.build import Experiment
from finetune.experiment.loaders import loader_workers
from finetune.progress import NewBar, no_bar
from finetune.training.features import compute_features


@dataclass(frozen=True)
class ImageFeatures:
    """What a backbone makes of the images of a split."""

    samples: tuple[Sample, ...]
    """The images, in the order of the index."""
    features: Tensor
    """(N, D), float32, on the CPU."""
    targets: Tensor
    """Classes (N,), or where an image may have several 0 and 1 (N, C)."""

    def one_hot(self, classes: int) -> Tensor:
        """Return the targets as 0 and 1 (N, C), float32, of either kind."""
        return target_rows(self.targets, classes)


def image_features(experiment: Experiment, split: Split, new_bar: NewBar = no_bar) -> ImageFeatures:
    """Compute the features of the evaluation view of every image of a split.

    The head and metadata have no part in them.
    """
    index, model, device = experiment.index, experiment.model.eval(), experiment.device
    transform = eval_transform(model.preprocessing)
    loader = build_eval_loader(
        EvalImages(index, experiment.limits, transform, split=split),
        batch_size=experiment.config.data.batch_size,
        workers=loader_workers(experiment),
        pin_memory=device.type == "cuda",
    )
    with new_bar(f"features {split}", index.count(split)) as bar:
        features, *_, targets = compute_features(
            model.features, loader, device=device, progress=bar.advance_by
        )
    end_workers(loader)
    return ImageFeatures(index.of_split(split), features.cpu(), targets.cpu())
