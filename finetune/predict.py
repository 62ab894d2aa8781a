"""The story of `finetune predict`: the most probable classes of any images."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from finetune.data.folders import find_images
from finetune.device import DeviceName, choose_device, keep_large_buffers
from finetune.errors import DataError
from finetune.images import ImageError, read_image
from finetune.progress import Display
from finetune.table import Columns, image_names, is_table, read_table
from finetune.trained import Trained, load_trained
from finetune.transforms import eval_transform


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: its most probable classes, or why there is none."""

    image: str
    classes: tuple[tuple[str, float], ...]
    """(class name, probability 0–1), most probable first; empty if the image cannot be read."""
    error: str | None

    def to_dict(self) -> dict[str, object]:
        """Give the answer as `predict --json` documents it."""
        classes = [{"class": name, "probability": share} for name, share in self.classes]
        return {"image": self.image, "predictions": classes, "error": self.error}

    def csv_rows(self) -> list[tuple[str, int | str, str, float | str, str]]:
        """Give a CSV row (image, rank, class, probability, error) for each class, or one for the error."""
        if self.error is not None:
            return [(self.image, "", "", "", self.error)]
        return [(self.image, rank, *pair, "") for rank, pair in enumerate(self.classes, start=1)]

    def table_row(self) -> tuple[str, str, str, str]:
        """Give the row of the table on screen."""
        if self.error is not None:
            return self.image, "–", "–", self.error
        (name, share), *others = self.classes
        return self.image, name, f"{share:.2%}", ", ".join(f"{other} {part:.2%}" for other, part in others)


def predict(
    run_dir: Path, inputs: Sequence[Path], *, top_k: int, device: DeviceName, display: Display
) -> list[Prediction]:
    """Classify images, all images below folders, and those that tables list, in the order given.

    Raises:
        RunError: not a finished run.
        DataError: a folder or table without images.
    """
    keep_large_buffers()
    trained = load_trained(run_dir, choose_device(device))
    paths = [path for given in inputs for path in _images_of(given, trained.columns)]
    predictions: list[Prediction] = []
    with display.bar("predicting", len(paths)) as bar, ThreadPoolExecutor() as readers:
        for batch in _batches(paths, trained.batch_size):
            predictions += _predict_batch(trained, batch, top_k, readers)
            bar.advance_to(len(predictions))
    return predictions


def _images_of(given: Path, columns: Columns) -> list[Path]:
    if given.is_dir():
        names = find_images(given, "").images
        if not names:
            raise DataError(f"No images in {given}.")
        return [given / name for name in names]
    if is_table(given):
        folder = given.parent
        return [folder / name for name in image_names(read_table(given), folder.absolute(), columns)]
    return [given]


def _batches(paths: Sequence[Path], size: int) -> Iterator[Sequence[Path]]:
    for start in range(0, len(paths), size):
        yield paths[start : start + size]


def _predict_batch(
    trained: Trained, paths: Sequence[Path], top_k: int, readers: ThreadPoolExecutor
) -> list[Prediction]:
    transform = eval_transform(trained.model.preprocessing)

    def read(path: Path) -> Tensor | ImageError:
        try:
            return transform(read_image(path, trained.limits, shrink_to=transform.shrink_to))
        except ImageError as error:
            return error

    read_images = list(readers.map(read, paths))
    images = [image for image in read_images if isinstance(image, Tensor)]
    answers = iter(_top_classes(trained, images, top_k))
    return [
        Prediction(str(path), next(answers), None)
        if isinstance(image, Tensor)
        else Prediction(str(path), (), image.reason)
        for path, image in zip(paths, read_images, strict=True)
    ]


def _top_classes(
    trained: Trained, images: Sequence[Tensor], top_k: int
) -> list[tuple[tuple[str, float], ...]]:
    if not images:
        return []
    with torch.inference_mode():
        logits = trained.model(torch.stack(list(images)).to(trained.device))
    best = logits.softmax(1).cpu().topk(min(top_k, len(trained.class_names)), dim=1)
    return [
        tuple((trained.class_names[target], share) for target, share in zip(targets, shares, strict=True))
        for targets, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
