"""The pictures of a report page: thumbnails of telling answers, with heat maps of what the model looks at."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from finetune.commands.report.judged import Judged
from finetune.commands.train.telling import Told
from finetune.data.images import ImageError
from finetune.data.index import load_sample
from finetune.data.loading.transforms import eval_transform
from finetune.data.metadata import Row, metadata_tensors
from finetune.machine.memory import out_of_memory
from finetune.model.heat_map import HeatMaps, heat_maps
from finetune.progress import NewBar
from finetune.report.heat_picture import heat_picture
from finetune.report.pictures import AnsweredImage, Pictures, WrongLabel
from finetune.report.thumbnails import load_thumbnail, thumbnail_of
from finetune.runs.trained_model import TrainedModel
from finetune.text import printable

_CELL = 96  # longest side in pixels of a picture of the confusion matrix
_OF_A_LABEL = 4  # pictures of a class that is missed, or given wrongly
_AT_ONCE = 4  # images whose heat maps are computed together, or as many as a batch has
_NO_MAP = "This network keeps no places that a heat map could show."
_NO_MEMORY = "There was no memory for heat maps."


def draw_pictures(
    judged: Judged, mistakes: Sequence[Told], close: Sequence[Told], new_bar: NewBar
) -> Pictures:
    """Draw all pictures of a page; an image that cannot be read any more is left out."""
    cells, (doubtful, doubted), wrong = judged.cells(), judged.doubtful(), judged.wrong_labels()
    total = len(mistakes) + len(close) + len(doubtful) + sum(map(len, cells.values())) + len(wrong)
    with new_bar("pictures", total) as bar:
        layer, told = "", list[list[AnsweredImage]]()
        for answers in (mistakes, close):
            images, own_layer = with_heat(judged, answers)
            layer = layer or own_layer
            told.append(images)
            bar.advance_by(len(answers))
        shown_doubtful = on_page(judged, doubtful)
        bar.advance_by(len(doubtful))
        of_cells = {}
        for cell, positions in cells.items():
            if images := on_page(judged, judged.told(positions), side=_CELL):
                of_cells[cell] = images
            bar.advance_by(len(positions))
        labels = []
        for number, missed, positions in wrong:
            labels.append(_wrong_label(judged, number, positions, missed=missed))
            bar.advance_by(1)
    heat = layer if any(told) else ""
    return Pictures(told[0], told[1], shown_doubtful, doubted, of_cells, labels, heat)


def _wrong_label(judged: Judged, number: int, positions: Sequence[int], *, missed: bool) -> WrongLabel:
    shown = positions[:_OF_A_LABEL]
    certainty = judged.probabilities[shown, number].tolist()
    told = [replace(one, certainty=p) for one, p in zip(judged.told(shown), certainty, strict=True)]
    name = judged.trained.class_names[number]
    return WrongLabel(name, missed, len(positions), on_page(judged, told, side=_CELL))


def on_page(judged: Judged, answers: Sequence[Told], *, side: int | None = None) -> list[AnsweredImage]:
    """Return answers with thumbnails; without one that cannot be read any more."""
    shown = []
    for told in answers:
        try:
            thumbnail = load_thumbnail(judged.index, told.sample, judged.trained.limits)
        except ImageError:
            continue
        if side is not None:
            thumbnail.thumbnail((side, side))
        shown.append(AnsweredImage(told.sample.name, told.label, told.answer, told.certainty, thumbnail))
    return shown


def with_heat(judged: Judged, answers: Sequence[Told]) -> tuple[list[AnsweredImage], str]:
    """Return answers with thumbnails and heat maps, and what to say of the heat maps."""
    shown, samples, pixels = list[AnsweredImage](), list[Told](), list[Tensor]()
    transform = eval_transform(judged.trained.model.preprocessing)
    for told in answers:
        try:
            image = load_sample(
                judged.index, told.sample, judged.trained.limits, shrink_to=transform.shrink_to
            )
        except ImageError:
            continue
        shown.append(
            AnsweredImage(told.sample.name, told.label, told.answer, told.certainty, thumbnail_of(image))
        )
        samples.append(told)
        pixels.append(transform(image))
    if not shown:
        return [], ""
    heats, layer = _heats(judged, samples, pixels)
    return [one._replace(heat=heat) for one, heat in zip(shown, heats, strict=True)], layer


def _heats(
    judged: Judged, answers: Sequence[Told], pixels: Sequence[Tensor]
) -> tuple[list[Image.Image | None], str]:
    """Return the heat map of each answer, drawn over the part of its image that enters the model."""
    drawn: list[Image.Image | None] = []
    layer = ""
    classes = torch.tensor([_explained(judged.trained, told) for told in answers])
    at_once = min(_AT_ONCE, judged.trained.batch_size)
    for start in range(0, len(answers), at_once):
        own = slice(start, start + at_once)
        try:
            rows = [told.sample.metadata for told in answers[own]]
            found = heat_maps_of(judged.trained, pixels[own], rows, classes[own])
        except (RuntimeError, MemoryError) as error:
            # A pass back through a network that was frozen in training takes more than any before.
            if out_of_memory(error) is None:
                raise
            return [None] * len(answers), _NO_MEMORY
        if found is None:
            return [None] * len(answers), _NO_MAP
        layer = found.layer
        pairs = zip(pixels[own], found.heat, strict=True)
        drawn += [thumbnail_of(heat_picture(picture, heat)) for picture, heat in pairs]
    where = f"In colour: what speaks for the answer (Grad-CAM, at {printable(layer)})."
    return drawn, where


def heat_maps_of(
    trained: TrainedModel, pixels: Sequence[Tensor], metadata: Sequence[Row], classes: Tensor
) -> HeatMaps | None:
    """Find where images hold what speaks for a class, as `heat_maps` does, with a model of a run.

    Args:
        trained: the model.
        pixels: of each image (3, H, W), as the transform of one view makes them.
        metadata: the cells of each image.
        classes: (N,), of each image the one to explain.

    Returns:
        None for a network in which no layer knows where.
    """
    beside = (tensor.to(trained.device) for tensor in metadata_tensors(trained.metadata, metadata))
    return heat_maps(trained.model, torch.stack(list(pixels)).to(trained.device), classes, *beside)


def _explained(trained: TrainedModel, told: Told) -> int:
    """Return the class whose heat is shown: the one that is answered; else one that it has."""
    names = trained.task.names_in(told.answer) or trained.task.names_in(told.label)
    return trained.class_names.index(names[0]) if names else 0
