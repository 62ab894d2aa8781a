"""The story of `finetune predict`: the most probable classes of any images."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from finetune.choices import DeviceName
from finetune.commands.predict.inputs import PredictionInput, read_inputs
from finetune.data.images import ImageError, convert_image, read_image
from finetune.data.loading.transforms import eval_transform
from finetune.data.metadata import metadata_tensors
from finetune.display import Display
from finetune.machine.device import choose_device, keep_large_buffers
from finetune.metrics.multi_label import label_probabilities
from finetune.notes import as_warnings
from finetune.progress import NewBar, no_bar
from finetune.runs.trained_model import Trained, load_trained, unfinished_warning


@dataclass(frozen=True)
class Answer:
    """What a model says of one class."""

    name: str
    probability: float
    threshold: float | None = None
    """probability from which on the class is given; None where the most probable one is"""

    @property
    def given(self) -> bool:
        """Tell whether an image has the class, where it may have several."""
        return self.threshold is not None and self.probability >= self.threshold

    def __str__(self) -> str:
        return f"{self.name} {self.probability:.2%}"

    def to_dict(self) -> dict[str, object]:
        """Return the answer as `predict --json` documents it."""
        threshold = {} if self.threshold is None else {"threshold": self.threshold}
        return {"class": self.name, "probability": self.probability, **threshold}


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: its most probable classes, or why there is none."""

    image: str
    classes: tuple[Answer, ...]
    """the most probable, and all that are given, most probable first; empty if the image cannot be read"""
    error: str | None
    top_k: int
    """how many of them were asked for"""
    multilabel: bool
    """whether the image may have several classes, or none"""

    @property
    def labels(self) -> list[str]:
        """Return the classes that the image has, where it may have several."""
        return [answer.name for answer in self.classes if answer.given]

    def to_dict(self) -> dict[str, object]:
        """Return the answer as `predict --json` documents it."""
        labels = {"labels": self.labels} if self.multilabel else {}
        classes = [answer.to_dict() for answer in self.classes[: self.top_k]]
        return {"image": self.image, **labels, "predictions": classes, "error": self.error}

    def csv_rows(self) -> list[dict[str, object]]:
        """Return a CSV row for each class, or one for the error."""
        if self.error is not None:
            return [{"image": self.image, "error": self.error}]
        rows: list[dict[str, object]] = []
        for rank, answer in enumerate(self.classes, start=1):
            rows.append(
                {"image": self.image, "rank": rank, "class": answer.name, "probability": answer.probability}
            )
            if self.multilabel:
                rows[-1]["assigned"] = int(answer.given)
        return rows

    def table_row(self) -> tuple[str, ...]:
        """Return the row of the table on screen."""
        if self.error is not None:
            return self.image, "–", *([] if self.multilabel else ["–"]), self.error
        if self.multilabel:
            given = [answer for answer in self.classes if answer.given]
            others = [answer for answer in self.classes[: self.top_k] if not answer.given]
            return self.image, ", ".join(map(str, given)) or "–", ", ".join(map(str, others))
        best, *others = self.classes
        return self.image, best.name, f"{best.probability:.2%}", ", ".join(map(str, others))


def csv_header(predictions: Sequence[Prediction]) -> list[str]:
    """Return the columns of the CSV."""
    assigned = ["assigned"] if any(prediction.multilabel for prediction in predictions) else []
    return ["image", "rank", "class", "probability", *assigned, "error"]


def table_header(predictions: Sequence[Prediction]) -> tuple[str, ...]:
    """Return the headings of the table on screen."""
    if any(prediction.multilabel for prediction in predictions):
        return "image", "labels", "next most probable"
    return "image", "class", "probability", "next most probable"


def predict(
    run_dir: Path,
    inputs: Sequence[Path],
    *,
    metadata: Sequence[str] = (),
    top_k: int,
    device: DeviceName,
    display: Display,
) -> list[Prediction]:
    """Classify images, all images below folders, and those that tables list, in the order given.

    Args:
        run_dir: directory of the run.
        inputs: images, folders and tables.
        metadata: tables of images and their metadata, or `column=value` for all images.
        top_k: how many classes to give for each.
        device: where to compute.
        display: where to tell how it goes.

    Raises:
        RunError: not a finished run.
        DataError: a folder or table without images, or metadata that cannot be.
        ConfigError: metadata that the model does not take.
    """
    keep_large_buffers()
    trained = load_trained(run_dir, choose_device(device))
    if warning := unfinished_warning(trained):
        display.warn(warning)
    found, warnings = read_inputs(inputs, trained, metadata)
    display.show(as_warnings(warnings))
    return classify(trained, found, top_k=top_k, new_bar=display.bar)


def classify(
    trained: Trained, asked: Sequence[PredictionInput], *, top_k: int, new_bar: NewBar = no_bar
) -> list[Prediction]:
    """Classify images, in the order given, with a model that is loaded; `top_k` as for `predict`."""
    predictions: list[Prediction] = []
    with new_bar("predicting", len(asked)) as bar, ThreadPoolExecutor() as readers:
        for batch in _batches(asked, trained.batch_size):
            predictions += _predict_batch(trained, batch, top_k, readers)
            bar.advance_to(len(predictions))
    return predictions


def _batches(asked: Sequence[PredictionInput], size: int) -> Iterator[Sequence[PredictionInput]]:
    for start in range(0, len(asked), size):
        yield asked[start : start + size]


def _predict_batch(
    trained: Trained, asked: Sequence[PredictionInput], top_k: int, readers: ThreadPoolExecutor
) -> list[Prediction]:
    def read(one: PredictionInput) -> Tensor | ImageError:
        try:
            return preprocess(one, trained)
        except ImageError as error:
            return error

    read_images = list(readers.map(read, asked))
    good = [(image, one) for image, one in zip(read_images, asked, strict=True) if isinstance(image, Tensor)]
    answers = iter(_answers(trained, good, top_k))
    several = trained.thresholds is not None
    return [
        Prediction(str(one.path), next(answers), None, top_k, several)
        if isinstance(image, Tensor)
        else Prediction(str(one.path), (), image.reason, top_k, several)
        for one, image in zip(asked, read_images, strict=True)
    ]


def preprocess(one: PredictionInput, trained: Trained) -> Tensor:
    """Read an image, and resize and crop it for the model: uint8 (3, S, S).

    Raises:
        ImageError: it cannot be read.
    """
    transform = eval_transform(trained.model.preprocessing)
    match one.pixels:
        case None:
            return transform(read_image(one.path, trained.limits, shrink_to=transform.shrink_to))
        case Image.Image() as image:
            return transform(convert_image(image, trained.limits, name=str(one.path)))
        case pixels:
            return transform(pixels)


def _answers(
    trained: Trained, good: Sequence[tuple[Tensor, PredictionInput]], top_k: int
) -> list[tuple[Answer, ...]]:
    """Return the most probable classes of each image, and all that are given."""
    if not good:
        return []
    inputs = [torch.stack([image for image, _ in good])]
    inputs += metadata_tensors(trained.metadata, [one.metadata for _, one in good])
    with torch.inference_mode():
        logits = trained.model(*(one.to(trained.device) for one in inputs))
    names, thresholds = trained.class_names, trained.thresholds
    shares = logits.softmax(1).cpu() if thresholds is None else label_probabilities(logits.cpu())
    ranked = shares.sort(dim=1, descending=True, stable=True)
    answers = []
    for targets, row in zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True):
        classes = [
            Answer(names[target], share, None if thresholds is None else thresholds[target])
            for target, share in zip(targets, row, strict=True)
        ]
        answers.append(tuple(a for rank, a in enumerate(classes) if rank < top_k or a.given))
    return answers
