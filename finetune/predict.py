"""The story of `finetune predict`: the most probable classes of any images."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from finetune.asked import Asked, find_asked
from finetune.data.facts import cells_by_name
from finetune.device import DeviceName, choose_device, keep_large_buffers
from finetune.images import ImageError, read_image
from finetune.loaders import stack_facts
from finetune.progress import Display
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
        metadata: what is told beside them: tables of images and metadata, or `column=value` for all images.
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
    asked = find_asked(inputs, trained, metadata, display)
    predictions: list[Prediction] = []
    with display.bar("predicting", len(asked)) as bar, ThreadPoolExecutor() as readers:
        for batch in _batches(asked, trained.batch_size):
            predictions += _predict_batch(trained, batch, top_k, readers)
            bar.advance_to(len(predictions))
    return predictions


def _batches(asked: Sequence[Asked], size: int) -> Iterator[Sequence[Asked]]:
    for start in range(0, len(asked), size):
        yield asked[start : start + size]


def _predict_batch(
    trained: Trained, asked: Sequence[Asked], top_k: int, readers: ThreadPoolExecutor
) -> list[Prediction]:
    transform = eval_transform(trained.model.preprocessing)

    def read(one: Asked) -> Tensor | ImageError:
        try:
            return transform(read_image(one.path, trained.limits, shrink_to=transform.shrink_to))
        except ImageError as error:
            return error

    read_images = list(readers.map(read, asked))
    good = [(image, one) for image, one in zip(read_images, asked, strict=True) if isinstance(image, Tensor)]
    answers = iter(_top_classes(trained, good, top_k))
    return [
        Prediction(str(one.path), next(answers), None)
        if isinstance(image, Tensor)
        else Prediction(str(one.path), (), image.reason)
        for one, image in zip(asked, read_images, strict=True)
    ]


def _top_classes(
    trained: Trained, good: Sequence[tuple[Tensor, Asked]], top_k: int
) -> list[tuple[tuple[str, float], ...]]:
    if not good:
        return []
    inputs = [torch.stack([image for image, _ in good])]
    if trained.metadata is not None:
        cells = [cells_by_name(one.cells, trained.metadata) for _, one in good]
        inputs += stack_facts([trained.metadata.encode(of_one) for of_one in cells])
    with torch.inference_mode():
        logits = trained.model(*(one.to(trained.device) for one in inputs))
    best = logits.softmax(1).cpu().topk(min(top_k, len(trained.class_names)), dim=1)
    return [
        tuple((trained.class_names[target], share) for target, share in zip(targets, shares, strict=True))
        for targets, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
