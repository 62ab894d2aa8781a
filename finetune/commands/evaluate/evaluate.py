"""The story of `finetune evaluate`: score a finished run on its own images or on another folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from finetune.choices import DeviceName, Split
from finetune.commands.evaluate.confidence import Confidence
from finetune.commands.report.judged import Judged
from finetune.data.image_files import is_folder
from finetune.data.images import ImageLimits
from finetune.data.index import ImageIndex, Sample
from finetune.data.indexing.match_classes import match_classes
from finetune.data.loading.dataset import EvalImages
from finetune.data.loading.loaders import ImageLoader, build_eval_loader
from finetune.data.loading.workers import choose_workers
from finetune.data.quality.scan import check_images
from finetune.display import Display
from finetune.errors import CheckpointError, ConfigError, DataError
from finetune.experiment.read_data import layout_lines
from finetune.machine.device import choose_device, keep_large_buffers
from finetune.metrics.installed import PREFIX, score_of_package
from finetune.metrics.score import Scores
from finetune.notes import as_warnings
from finetune.plugins import require_packages
from finetune.progress import NewBar
from finetune.report.scores import accuracy_interval
from finetune.runs import SPLIT
from finetune.runs.records import ADVICE
from finetune.runs.trained_model import TrainedModel, load_trained, unfinished_warning
from finetune.text import counted
from finetune.training.inference import compute_logits


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on some images."""

    trained: TrainedModel
    scores: Scores
    judged: Judged
    """the answers"""
    of_packages: Mapping[str, float]
    """Scores of other packages by name, of those that the training was judged by."""

    @property
    def confidence(self) -> Confidence:
        """How certain the answers are, and how often they are right."""
        return self.judged.confidence

    def to_dict(self) -> dict[str, Any]:
        """Return it as `evaluate --json` documents it."""
        confidence = self.confidence.to_dict() | {"accuracy_interval": accuracy_interval(self.scores)}
        theirs = {"of_packages": dict(self.of_packages)} if self.of_packages else {}
        return self.scores.to_dict() | theirs | {"confidence": confidence} | self.trained.about_tta()


def evaluate(
    run_dir: Path,
    data: Path | None,
    *,
    split: Split,
    device: DeviceName,
    display: Display,
    tta: bool = False,
) -> Evaluation:
    """Score the best model of a run.

    Args:
        run_dir: directory of the run.
        data: class folders or a table to score on, matched with the model's classes by name; None for the
            images of the run itself.
        split: which of the run's own images, or of the rows of a table that has a split column.
        device: where to compute.
        display: where to show the progress.
        tta: whether the model answers by the mean over several views of each image.

    Raises:
        RunError: not a finished run.
        DataError: images that are missing, unreadable, or of no class that the model knows.
    """
    keep_large_buffers()
    trained = load_trained(run_dir, choose_device(device)).with_tta(tta)
    if warning := unfinished_warning(trained):
        display.warn(warning)
    return evaluate_trained(trained, data, split=split, display=display)


def evaluate_trained(
    trained: TrainedModel, data: Path | None, *, split: Split, display: Display
) -> Evaluation:
    """Score a model that is loaded; arguments and errors are those of `evaluate`."""
    if trained.tta:
        display.say(views_line(trained))
    if data is None:
        return _evaluation(trained, own_index(trained), split, display)
    found = match_classes(
        data,
        trained.class_names,
        columns=trained.columns,
        metadata=trained.metadata,
        split=split,
        folders=trained.folders,
    )
    index = look_at_images(found.index, trained.limits, display.bar)
    for line in layout_lines(index):
        display.say(line)
    display.show(as_warnings(index.warnings))
    if found.unknown:
        display.warn(f"left out, not among the model's classes: {_counted(found.unknown)}")
    if found.missing:
        display.warn(f"classes of the model without an image here: {', '.join(found.missing)}")
    return _evaluation(trained, index, "test", display)


def _evaluation(trained: TrainedModel, index: ImageIndex, split: Split, display: Display) -> Evaluation:
    logits, targets = split_logits(trained, index, split, display.bar)
    scores = trained.task.score(logits, targets, trained.class_names, trained.thresholds)
    theirs = _scores_of_packages(trained, logits, targets, display)
    return Evaluation(trained, scores, Judged(trained, index, split, logits, targets), theirs)


def _scores_of_packages(
    trained: TrainedModel, logits: Tensor, targets: Tensor, display: Display
) -> dict[str, float]:
    """Compute the metrics of packages that a model was chosen by; warn of those that are not installed."""
    found = {}
    for one in trained.packages:
        if one["group"] == "finetune.metrics":
            try:
                require_packages([one], str(trained.run.directory))
            except ConfigError as error:
                display.warn(str(error))
                continue
            probabilities = trained.task.probabilities(logits.double())
            found[one["name"]] = score_of_package(PREFIX + one["name"], probabilities, targets)
            display.say(f"{one['name']} {found[one['name']]:.4f} (of {one['package']} {one['version']})")
    return found


def evaluate_split(trained: TrainedModel, index: ImageIndex, split: Split, new_bar: NewBar) -> Scores:
    """Score a model on one split of an index whose targets are the model's classes."""
    logits, targets = split_logits(trained, index, split, new_bar)
    return trained.task.score(logits, targets, trained.class_names, trained.thresholds)


def split_logits(
    trained: TrainedModel, index: ImageIndex, split: Split, new_bar: NewBar
) -> tuple[Tensor, Tensor]:
    """Return the logits (N, C) and the targets of the images of a split, on the CPU."""
    images = index.count(split)
    if not images:
        raise DataError(f"The run has no {split} images; it has {_splits(index)}.")
    with new_bar(f"evaluating {split}", images) as bar:
        return compute_logits(
            trained.answering,
            eval_loader(trained, index, split),
            device=trained.device,
            done=lambda batches: bar.advance_to(min(batches * trained.batch_size, images)),
        )


def eval_loader(trained: TrainedModel, index: ImageIndex, split: Split) -> ImageLoader:
    """Build the loader of a split's images, as a trained model takes them."""
    return build_eval_loader(
        EvalImages(index, trained.limits, trained.transform, split=split),
        batch_size=trained.batch_size,
        workers=choose_workers("auto", index.count(split), device_type=trained.device.type),
        device=trained.device,
    )


def views_line(trained: TrainedModel) -> str:
    """Say over how many views of each image a model answers."""
    mirrored = (
        ", mirrored ones too" if trained.mirrored else "; none mirrored, because training mirrored none"
    )
    return f"tta     the mean over {trained.views} views of each image{mirrored}"


def look_at_images(index: ImageIndex, limits: ImageLimits, new_bar: NewBar) -> ImageIndex:
    """Decode every image once, and return the index with what there is to warn of.

    Raises:
        DataError: images that cannot be read.
    """
    with new_bar("checking images", len(index.samples)) as bar:
        return check_images(index, limits, progress=lambda done, total: bar.advance_to(done))


def own_index(trained: TrainedModel, *, images: bool = True) -> ImageIndex:
    """Rebuild the index of a run from the record of its split.

    Args:
        trained: the run's model.
        images: whether they are needed; their folder must be there then.

    Raises:
        DataError: the folder of its images is not there any more.
        CheckpointError: the record is not that of this model.
    """
    if images and trained.root is not None and not is_folder(trained.root):
        raise DataError(
            f"The run was trained on images in {trained.root}, which is not there (any more).\n"
            "Name a folder of class folders, or a table: finetune evaluate RUN DATA."
        )
    targets = {name: target for target, name in enumerate(trained.class_names)}
    rows = trained.run.read_split()
    if strangers := {name for row in rows for name in trained.task.names_in(row.class_name)} - set(targets):
        raise CheckpointError(
            f"{trained.run / SPLIT} is damaged or was changed: the model has no class "
            f"{min(strangers)!r}.\n{ADVICE}"
        )
    samples = tuple(
        Sample(
            row.name,
            tuple(targets[own] for own in trained.task.names_in(row.class_name)),
            row.split,
            metadata=row.metadata,
        )
        for row in rows
    )
    return ImageIndex(
        trained.root, trained.class_names, samples, metadata=trained.metadata, task=trained.task
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({counted(number, 'image')})" for name, number in counts.items())


def _splits(index: ImageIndex) -> str:
    counts = {split: index.count(split) for split in ("train", "val", "test")}
    return ", ".join(f"{number:,} {split}" for split, number in counts.items() if number)
