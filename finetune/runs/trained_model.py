"""A finished run, ready for use: its model, its classes, and how it reads images."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from finetune.analysis.novelty import NEAREST, KnownImages
from finetune.data.data_layout import ANYHOW, FolderOptions
from finetune.data.images import ImageLimits
from finetune.data.index import ImageIndex
from finetune.data.loading.transforms import Transform, eval_transform
from finetune.data.loading.views import count_views, view_transform
from finetune.data.metadata import Metadata
from finetune.data.table import Columns
from finetune.errors import CheckpointError
from finetune.machine.device import set_arithmetic
from finetune.model import ImageClassifier, ModelSpec, Weights, rebuild_classifier
from finetune.model.origin import Origin, sha256_of
from finetune.plugins import FromPackage, require_packages
from finetune.runs import MODEL, STATUS, WEIGHTS, Run, open_run
from finetune.runs.digests import find_valid
from finetune.runs.records import check_description
from finetune.task import Task, task_of
from finetune.training.inference import MeanOverViews
from finetune.version import VERSION

_FORMAT = 3


class BestEpoch(NamedTuple):
    """When the weights of a run were the best."""

    stage: str
    epoch: int
    """From 1, within the stage."""

    def __str__(self) -> str:
        return f"stage {self.stage}, epoch {self.epoch}"


@dataclass(frozen=True)
class TrainedModel:
    """What evaluation and prediction need of a run."""

    run: Run
    model: ImageClassifier
    class_names: tuple[str, ...]
    limits: ImageLimits
    batch_size: int
    device: torch.device
    root: Path | None
    """Folder of the images it was trained on; None for a built-in data set."""
    columns: Columns
    """The columns of its table that the config named."""
    metadata: Metadata | None
    """What it has learned of the metadata of an image; None if it takes none."""
    best: BestEpoch
    task: Task
    """What is asked of each image: its class, or its classes."""
    thresholds: tuple[float, ...] | None = None
    """Probability from which on each class is given; None where an image has the most probable one."""
    temperature: float = 1.0
    """What logits are divided by, so that probabilities are what they say."""
    known: KnownImages | None = None
    """Features of images that it was trained on; None where the training has not come to its end."""
    mirrored: bool = False
    """Whether training showed it mirrored images as well."""
    folders: FolderOptions = ANYHOW
    """How the folder of its images was read."""
    tta: bool = False
    """Whether it answers by the mean over several views of each image."""
    packages: tuple[Mapping[str, str], ...] = ()
    """What was taken from other packages, as `FromPackage.to_dict` says it."""

    @property
    def transform(self) -> Transform:
        """What makes an image, or all views of it, ready for `answering`."""
        preprocessing = self.model.preprocessing
        return (
            view_transform(preprocessing, mirror=self.mirrored) if self.tta else eval_transform(preprocessing)
        )

    @property
    def answering(self) -> nn.Module:
        """What turns batches of what `transform` makes, and metadata, into logits (N, C)."""
        return MeanOverViews(self.model) if self.tta else self.model

    def answer(self, images: Tensor, *metadata: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (N, C) of what `transform` makes of images, and features (N, D) of one view."""
        features = [self.model.features(view) for view in (images.unbind(1) if self.tta else (images,))]
        logits = torch.stack([self.model.head(of_view, *metadata) for of_view in features]).mean(0)
        return logits, features[0]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the calibrated probability of each class (N, C)."""
        return self.task.probabilities(logits.double() / self.temperature)

    def assigned(self, logits: Tensor) -> Tensor:
        """Tell which classes each image is given (N, C), by its logits."""
        return self.task.assigned(self.task.probabilities(logits), self.thresholds)

    @property
    def calibrated_thresholds(self) -> tuple[float, ...] | None:
        """The thresholds on the calibrated probabilities; None where an image has the most probable class."""
        if self.thresholds is None:
            return None
        logits = torch.tensor(self.thresholds, dtype=torch.float64).clamp(0, 1).logit()
        return tuple((logits / self.temperature).sigmoid().tolist())

    @property
    def views(self) -> int:
        """How many views of each image it looks at."""
        return count_views(mirror=self.mirrored) if self.tta else 1

    def about_tta(self) -> dict[str, Any]:
        """Return what JSON says of the views; nothing without them."""
        return {"tta": {"views": self.views, "mirrored": self.mirrored}} if self.tta else {}

    def with_tta(self, tta: bool) -> Self:
        """Return the same model, which answers by the mean over several views of each image if `tta`."""
        return replace(self, tta=tta)

    @classmethod
    def described(
        cls, run: Run, model: ImageClassifier, description: Mapping[str, Any], device: torch.device
    ) -> Self:
        """Return a model that is on `device` with the rest of what its description holds.

        `description` is what `describe_model` gave, with the best epoch and the thresholds.
        """
        reading, columns = dict(description["reading"]), dict(description["columns"])
        reading["background"] = tuple(reading["background"])
        if isinstance(columns.get("label"), list):
            columns["label"] = tuple(columns["label"])
        columns["found"] = tuple(columns.get("found", ()))
        root, metadata, best = description["root"], description["metadata"], description["best"]
        task = task_of(bool(description.get("multilabel")))
        return cls(
            run=run,
            model=model.eval(),
            class_names=tuple(description["class_names"]),
            limits=ImageLimits(**reading),
            batch_size=int(description["batch_size"]),
            device=device,
            root=None if root is None else Path(root),
            columns=Columns(**columns),
            metadata=None if metadata is None else Metadata.from_dict(metadata),
            best=BestEpoch(best["stage"], best["epoch"]),
            task=task,
            thresholds=_thresholds(description) if task.multilabel else None,
            mirrored=bool(description.get("mirrored")),
            temperature=float(description.get("temperature", 1.0)),
            folders=FolderOptions(**description.get("folders", {})),
            packages=tuple(description.get("packages", ())),
        )


def describe_model(
    spec: ModelSpec,
    index: ImageIndex,
    limits: ImageLimits,
    *,
    batch_size: int,
    mirrored: bool,
    packages: Sequence[FromPackage] = (),
) -> dict[str, object]:
    """Return the content of model.json, all that `load_trained` needs beside the weights.

    Args:
        spec: what the model is made of.
        index: the images that it was trained on.
        limits: how they are read.
        batch_size: images that enter it at once.
        mirrored: whether it has seen images mirrored as well.
        packages: what was taken from other packages.
    """
    return {
        "format": _FORMAT,
        "finetune": VERSION,
        "torch": torch.__version__,
        "model": spec.to_dict(),
        "class_names": list(index.class_names),
        "multilabel": index.task.multilabel,
        "reading": asdict(limits),
        "batch_size": batch_size,
        "mirrored": mirrored,
        "root": None if index.root is None else str(index.root),
        "columns": asdict(index.columns),
        "metadata": None if index.metadata is None else index.metadata.to_dict(),
        **({} if index.folders == ANYHOW else {"folders": asdict(index.folders)}),
        **({"packages": [origin.to_dict() for origin in packages]} if packages else {}),
    }


def load_trained(directory: Path, device: torch.device) -> TrainedModel:
    """Load the best model of a run onto `device`, in eval mode.

    Raises:
        RunError: not a run, or one without a model.
        CheckpointError: its files are damaged, or made by a newer version.
    """
    run = open_run(directory)
    state, description = _read_model(run)
    with _reported_damage(run):
        networks = [
            one for one in description.get("packages", ()) if one["group"] == "finetune.architectures"
        ]
        require_packages(networks, str(directory))
        model = rebuild_classifier(description["model"], state).to(device)
        check_description(description, run / MODEL)
        set_arithmetic(device, model.spec.precision, deterministic=True)
        trained = TrainedModel.described(run, model, description, device)
        known = _known_images(run) if "temperature" in description else None  # else of an earlier model
        return replace(trained, known=known)


def unfinished_warning(trained: TrainedModel) -> str | None:
    """Return what to warn of where the training of a model has not ended as planned; None where it has.

    A directory without status.json is a copy of the model alone, of which nothing more is known.
    """
    run = trained.run
    if not (run / STATUS).exists():
        return None
    try:
        status = run.read_json(STATUS)
    except CheckpointError:  # no answer depends on this file, so a damaged one is no reason to refuse
        status = None
    state = status.get("state") if isinstance(status, dict) else "unreadable"
    if state == "done":
        return None
    return (
        f"the training of {run.directory} is not done (status: {state}); "
        f"this is its best model so far ({trained.best})"
    )


def load_run_weights(directory: Path) -> Weights:
    """Load the best weights of a run as pretrained weights for another one.

    Raises:
        RunError: not a run, or one without a model.
        CheckpointError: its files are damaged or were changed, or were made by another version.
    """
    run = open_run(directory)
    state, description = _read_model(run)
    with _reported_damage(run):
        spec = ModelSpec.from_dict(description["model"])
    assert spec.preprocessing is not None  # from_dict reads complete models only
    return Weights(
        str(directory),
        spec.preprocessing,
        state,
        spec.transform_input,
        of_run=True,
        arch=spec.arch,
        source=Origin("run", str(directory.absolute()), sha256=sha256_of(find_valid(run / WEIGHTS))),
    )


def _read_model(run: Run) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    state, description = run.load_model()
    if not isinstance(description, dict) or description.get("format") != _FORMAT:
        theirs = description.get("finetune") if isinstance(description, dict) else None
        raise CheckpointError(
            f"{run / MODEL} is of finetune {theirs}, and in a format that finetune {VERSION} does not know.\n"
            f"Use that version: pip install 'finetune-vision=={theirs}'"
        )
    return state, description


@contextmanager
def _reported_damage(run: Run) -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{run / MODEL} is damaged or was changed ({error!r}).") from None


def _known_images(run: Run) -> KnownImages | None:
    tensors = run.load_known()
    if tensors is None:
        return None
    nearest = int(tensors["nearest"]) if "nearest" in tensors else NEAREST  # of an earlier version
    return KnownImages(tensors["directions"], float(tensors["threshold"]), nearest)


def _thresholds(description: Mapping[str, Any]) -> tuple[float, ...]:
    thresholds = tuple(float(number) for number in description["thresholds"])
    if len(thresholds) != len(description["class_names"]):
        raise ValueError(f"{len(thresholds)} thresholds for {len(description['class_names'])} classes")
    return thresholds
