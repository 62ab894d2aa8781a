"""The story of `finetune compare`: what differs between runs, and whether that is more than chance."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from finetune.analysis.paired import PairedComparison, compare_paired
from finetune.choices import DeviceName
from finetune.commands.evaluate.evaluate import own_index, split_logits
from finetune.commands.train.resume import config_as_given, different_keys
from finetune.data.images import ImageError
from finetune.data.index import ImageIndex
from finetune.display import Display
from finetune.errors import CheckpointError, ConfigError, FinetuneError
from finetune.machine.device import choose_device, keep_large_buffers
from finetune.progress import NewBar
from finetune.report.thumbnails import load_thumbnail
from finetune.runs import HISTORY
from finetune.runs.history import EpochRow, read_history
from finetune.runs.records import ADVICE
from finetune.runs.trained_model import TrainedModel, load_trained
from finetune.text import quoted

_SHOWN = 48  # pictures of a page that one model alone has right


@dataclass(frozen=True)
class Disputed:
    """An image that one model alone has right."""

    name: str
    first_right: bool
    first: str
    """what the first says; of several classes the names in one text"""
    this: str
    certainties: tuple[float, float]
    """the calibrated probability of both answers, 0–1"""
    thumbnail: Image.Image


@dataclass(frozen=True)
class OtherRun:
    """What a run has beside the first one."""

    run_dir: str
    config: Sequence[tuple[str, str, str]]
    """key, value of the first, value of this one"""
    data: Sequence[str]
    """how the images differ, a line each"""
    scores: PairedComparison | None
    """on the images that both validate on; None where there are none, or their classes differ"""
    why_not: str
    """why there are no scores; else empty"""
    first_right: Sequence[str]
    """images that the first alone has right"""
    this_right: Sequence[str]
    pictures: Sequence[Disputed] = ()
    """some of these, the surest mistakes first, where they were asked for"""

    def to_dict(self) -> dict[str, Any]:
        """Return it as `compare --json` documents it."""
        return {
            "run_dir": self.run_dir,
            "config": [{"key": key, "first": one, "this": other} for key, one, other in self.config],
            "data": list(self.data),
            "paired": None if self.scores is None else self.scores.to_dict(),
            "why_not": self.why_not or None,
            "first_right": list(self.first_right),
            "this_right": list(self.this_right),
        }


@dataclass(frozen=True)
class ComparedRuns:
    """Runs, each compared with the first."""

    runs: Sequence[str]
    histories: Sequence[Sequence[EpochRow]]
    best: Sequence[dict[str, float]]
    """validation accuracy, mAP and loss of the best model of each"""
    others: Sequence[OtherRun]
    multilabel: bool = False
    """whether an image may have several classes in the first"""

    def to_dict(self) -> dict[str, Any]:
        """Return it as `compare --json` documents it."""
        return {
            "runs": [
                {"run_dir": run, **best, "history": [row.to_dict() for row in history]}
                for run, best, history in zip(self.runs, self.best, self.histories, strict=True)
            ],
            "compared": [other.to_dict() for other in self.others],
        }


@dataclass(frozen=True)
class _Opened:
    trained: TrainedModel
    index: ImageIndex
    history: Sequence[EpochRow]


@dataclass(frozen=True)
class _Answers:
    """What a model says of some images, in their order."""

    right: Tensor
    """(N,)"""
    texts: Sequence[str]
    certainty: Tensor
    """(N,)"""


def compare_runs(
    directories: Sequence[Path], *, device: DeviceName, display: Display, pictures: bool = False
) -> ComparedRuns:
    """Compare runs with the first of them; with `pictures` also load some that one alone has right.

    Raises:
        RunError: not a finished run.
        DataError: the images of the first run are not there any more.
        CheckpointError: files of a run are damaged, or were changed.
        ConfigError: fewer than two runs.
    """
    if len(directories) < 2:
        raise ConfigError("compare needs two runs or more.\nFor instance: finetune compare runs/a runs/b")
    keep_large_buffers()
    opened = [_open(directory, choose_device(device)) for directory in directories]
    first, *others = opened
    return ComparedRuns(
        runs=[str(directory) for directory in directories],
        histories=[one.history for one in opened],
        best=[_best(one) for one in opened],
        others=[_compare(first, other, display.bar, pictures=pictures) for other in others],
        multilabel=first.trained.task.multilabel,
    )


def _open(directory: Path, device: torch.device) -> _Opened:
    trained = load_trained(directory, device)
    return _Opened(trained, own_index(trained), read_history(trained.run))


def _best(opened: _Opened) -> dict[str, float]:
    best = opened.trained.best
    row = next((r for r in opened.history if (r.stage, r.epoch) == (best.stage, best.epoch)), None)
    if row is None:
        raise CheckpointError(
            f"{opened.trained.run / HISTORY} is missing or was changed: it lacks the best epoch "
            f"({best}).\n{ADVICE}"
        )
    return {"accuracy": row.val_accuracy, "map": row.val_map, "loss": row.val_loss}


def _compare(first: _Opened, other: _Opened, new_bar: NewBar, *, pictures: bool) -> OtherRun:
    common, why_not = _common_images(first, other)
    scores, first_right, this_right, disputed = None, list[str](), list[str](), list[Disputed]()
    if common:
        ours, theirs = (_answers(one, common, new_bar) for one in (first, other))
        scores = compare_paired(ours.right, theirs.right)
        pairs = list(zip(common, ours.right.tolist(), theirs.right.tolist(), strict=True))
        first_right = [name for name, a, b in pairs if a and not b]
        this_right = [name for name, a, b in pairs if b and not a]
        disputed = _disputed(first, common, ours, theirs) if pictures else []
    return OtherRun(
        run_dir=str(other.trained.run.directory),
        config=_config_differences(first, other),
        data=_data_differences(first, other),
        scores=scores,
        why_not=why_not,
        first_right=first_right,
        this_right=this_right,
        pictures=disputed,
    )


def _disputed(first: _Opened, names: Sequence[str], ours: _Answers, theirs: _Answers) -> list[Disputed]:
    """Load images that one model alone has right, those first of which the other is the surest."""
    samples = {sample.name: sample for sample in first.index.of_split("val")}
    found: list[Disputed] = []
    for right, wrong in ((ours, theirs), (theirs, ours)):
        positions = (right.right & ~wrong.right).nonzero().flatten().tolist()
        positions.sort(key=lambda position: -float(wrong.certainty[position]))
        for position in positions[:_SHOWN]:
            sample = samples[names[position]]
            with suppress(ImageError):  # one that is gone meanwhile is not shown
                found.append(
                    Disputed(
                        name=sample.name,
                        first_right=right is ours,
                        first=ours.texts[position],
                        this=theirs.texts[position],
                        certainties=(float(ours.certainty[position]), float(theirs.certainty[position])),
                        thumbnail=load_thumbnail(first.index, sample, first.trained.limits),
                    )
                )
    return found


def _config_differences(first: _Opened, other: _Opened) -> list[tuple[str, str, str]]:
    try:
        configs = [config_as_given(one.trained.run) for one in (first, other)]
    except FinetuneError as error:
        return [("config", "", str(error).partition("\n")[0])]
    return different_keys(*configs)


def _data_differences(first: _Opened, other: _Opened) -> list[str]:
    """Say which images and classes one run has and the other has not, or has otherwise."""
    lines = []
    classes = [set(one.trained.class_names) for one in (first, other)]
    for whose, extra in (("the first", classes[0] - classes[1]), ("this one", classes[1] - classes[0])):
        if extra:
            lines.append(f"classes that only {whose} has: {quoted(sorted(extra))}")
    rows = [{row.name: row for row in one.trained.run.read_split()} for one in (first, other)]
    both = rows[0].keys() & rows[1].keys()
    digests = [one.trained.run.read_files() for one in (first, other)]
    what = {
        "only the first has": len(rows[0].keys() - both),
        "only this one has": len(rows[1].keys() - both),
        "are in another split": sum(rows[0][name].split != rows[1][name].split for name in both),
        "have another class": sum(rows[0][name].class_name != rows[1][name].class_name for name in both),
        "have another content": sum(
            digests[0][name].blake2b != digests[1][name].blake2b
            for name in both
            if name in digests[0] and name in digests[1]
        ),
    }
    return lines + [f"images that {text}: {number:,}" for text, number in what.items() if number]


def _common_images(first: _Opened, other: _Opened) -> tuple[list[str], str]:
    """Return the images that both validate on, in the order of the first; or why there are none."""
    if set(first.trained.class_names) != set(other.trained.class_names):
        return [], "their classes differ"
    if first.trained.task.multilabel != other.trained.task.multilabel:
        return [], "in one of them an image may have several classes"
    files = [one.trained.run.read_files() for one in (first, other)]
    theirs = {sample.name: other.index.label_text(sample) for sample in other.index.of_split("val")}
    names = [
        sample.name
        for sample in first.index.of_split("val")
        if theirs.get(sample.name) == first.index.label_text(sample) and _same(sample.name, *files)
    ]
    return names, "" if names else "they validate on no common image"


def _same(name: str, ours: Any, theirs: Any) -> bool:
    """Tell whether an image has the same content in both runs, as far as they have recorded it."""
    if name not in ours or name not in theirs:
        return True
    return bool(ours[name].blake2b == theirs[name].blake2b)


def _answers(opened: _Opened, names: Sequence[str], new_bar: NewBar) -> _Answers:
    """Return what a model says of some of its validation images."""
    samples, trained = {sample.name: sample for sample in opened.index.of_split("val")}, opened.trained
    index = replace(opened.index, samples=tuple(samples[name] for name in names))
    logits, targets = split_logits(trained, index, "val", new_bar)
    task, assigned = trained.task, trained.assigned(logits)
    given = [
        task.label_text([name for name, has in zip(trained.class_names, row, strict=True) if has])
        for row in assigned.tolist()
    ]
    certainty = task.certainty(trained.probabilities(logits), assigned)
    return _Answers(task.is_right(assigned, targets), given, certainty)
