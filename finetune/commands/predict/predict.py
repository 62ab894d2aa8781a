"""The story of `finetune predict`: the most probable classes of any images."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from finetune.choices import DeviceName
from finetune.commands.evaluate.evaluate import views_line
from finetune.commands.predict.inputs import PredictionInput, read_inputs
from finetune.commands.predict.prediction import Answer, Prediction, Verdict
from finetune.data.images import ImageError, convert_image, read_image
from finetune.data.metadata import metadata_tensors
from finetune.display import Display
from finetune.machine.device import choose_device, keep_large_buffers
from finetune.progress import NewBar, no_bar
from finetune.runs.trained_model import TrainedModel, load_trained, unfinished_warning


def predict(
    run_dir: Path,
    inputs: Sequence[Path],
    *,
    metadata: Sequence[str] = (),
    top_k: int,
    device: DeviceName,
    display: Display,
    tta: bool = False,
) -> list[Prediction]:
    """Classify images, all images below folders, and those that tables list, in the order given.

    Args:
        run_dir: directory of the run.
        inputs: images, folders and tables.
        metadata: tables of images and their metadata, or `column=value` for all images.
        top_k: how many classes to give for each.
        device: where to compute.
        display: where to show the progress.
        tta: whether the model answers by the mean over several views of each image.

    Raises:
        RunError: not a finished run.
        DataError: a folder or table without images, or metadata that cannot be.
        ConfigError: metadata that the model does not take.
    """
    keep_large_buffers()
    trained = load_trained(run_dir, choose_device(device)).with_tta(tta)
    if warning := unfinished_warning(trained):
        display.warn(warning)
    if tta:
        display.say(views_line(trained))
    images, notes = read_inputs(inputs, trained, metadata)
    display.show(notes)
    return classify(trained, images, top_k=top_k, new_bar=display.bar)


def classify(
    trained: TrainedModel, inputs: Sequence[PredictionInput], *, top_k: int, new_bar: NewBar = no_bar
) -> list[Prediction]:
    """Classify images, in the order given, with a model that is loaded; `top_k` as for `predict`."""
    predictions: list[Prediction] = []
    with new_bar("predicting", len(inputs)) as bar, ThreadPoolExecutor() as readers:
        for batch in _batches(inputs, trained.batch_size):
            predictions += _predict_batch(trained, batch, top_k, readers)
            bar.advance_to(len(predictions))
    return predictions


def _batches(inputs: Sequence[PredictionInput], size: int) -> Iterator[Sequence[PredictionInput]]:
    for start in range(0, len(inputs), size):
        yield inputs[start : start + size]


def _predict_batch(
    trained: TrainedModel, inputs: Sequence[PredictionInput], top_k: int, readers: ThreadPoolExecutor
) -> list[Prediction]:
    def read(one: PredictionInput) -> Tensor | ImageError:
        try:
            return preprocess(one, trained)
        except ImageError as error:
            return error

    read_images = list(readers.map(read, inputs))
    good = [(image, one) for image, one in zip(read_images, inputs, strict=True) if isinstance(image, Tensor)]
    answers = iter(answer_images(trained, good, top_k))
    return [
        Prediction(str(one.path), *next(answers), None, top_k, trained.task)
        if isinstance(image, Tensor)
        else Prediction(str(one.path), (), None, None, image.reason, top_k, trained.task)
        for one, image in zip(inputs, read_images, strict=True)
    ]


def preprocess(one: PredictionInput, trained: TrainedModel) -> Tensor:
    """Read an image, and resize and crop it for the model: uint8 (3, S, S), or (V, 3, S, S) for V views.

    Raises:
        ImageError: it cannot be read.
    """
    transform = trained.transform
    match one.pixels:
        case None:
            return transform(read_image(one.path, trained.limits, shrink_to=transform.shrink_to))
        case Image.Image() as image:
            return transform(convert_image(image, trained.limits, name=str(one.path)))
        case pixels:
            return transform(pixels)


def answer_images(
    trained: TrainedModel, good: Sequence[tuple[Tensor, PredictionInput]], top_k: int
) -> list[Verdict]:
    """Return the most probable classes of each image, and all that are given."""
    if not good:
        return []
    inputs = [torch.stack([image for image, _ in good])]
    inputs += metadata_tensors(trained.metadata, [one.metadata for _, one in good])
    with torch.inference_mode():
        logits, features = trained.answer(*(one.to(trained.device) for one in inputs))
    task, names = trained.task, trained.class_names
    thresholds = trained.calibrated_thresholds or [None] * len(names)
    assigned = trained.assigned(logits.cpu())
    probabilities = trained.probabilities(logits.cpu())
    certainties = task.certainty(probabilities, assigned).tolist()
    unlike = [None] * len(good) if trained.known is None else trained.known.unlike(features.cpu()).tolist()
    ranked = probabilities.sort(dim=1, descending=True, stable=True)
    given = assigned.gather(1, ranked.indices)
    answers = []
    columns = (ranked.indices.tolist(), ranked.values.tolist(), given.tolist(), certainties, unlike)
    for *row, certainty, is_unlike in zip(*columns, strict=True):
        classes = [
            Answer(names[target], probability, has_it, thresholds[target])
            for target, probability, has_it in zip(*row, strict=True)
        ]
        kept = tuple(a for rank, a in enumerate(classes) if rank < top_k or a.given)
        answers.append(Verdict(kept, certainty, is_unlike))
    return answers
