"""The story of `finetune compare`: what differs between runs, and whether that is more than chance."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finetune.analysis.paired import LEVEL, PairedComparison, compare_paired
from finetune.choices import DeviceName
from finetune.commands.evaluate.evaluate import own_index, split_logits
from finetune.commands.train.resume import config_as_given, different_keys
from finetune.data.index import ImageIndex
from finetune.display import Display
from finetune.errors import CheckpointError, ConfigError, FinetuneError
from finetune.machine.device import choose_device, keep_large_buffers
from finetune.progress import NewBar
from finetune.runs import HISTORY
from finetune.runs.recorder import EpochRow, read_history
from finetune.runs.records import ADVICE
from finetune.runs.trained_model import TrainedModel, load_trained
from finetune.text import counted, printable, quoted

_LISTED = 20  # images of which one model alone is right; epochs


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

    def to_dict(self) -> dict[str, Any]:
        """Return it as `compare --json` documents it."""
        return {
            "runs": [
                {"run_dir": run, **best, "history": [asdict(row) for row in history]}
                for run, best, history in zip(self.runs, self.best, self.histories, strict=True)
            ],
            "compared": [other.to_dict() for other in self.others],
        }


@dataclass(frozen=True)
class _Opened:
    trained: TrainedModel
    index: ImageIndex
    history: Sequence[EpochRow]


def compare_runs(directories: Sequence[Path], *, device: DeviceName, display: Display) -> ComparedRuns:
    """Compare runs with the first of them.

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
        others=[_compare(first, other, display.bar) for other in others],
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


def _compare(first: _Opened, other: _Opened, new_bar: NewBar) -> OtherRun:
    common, why_not = _common_images(first, other)
    scores, first_right, this_right = None, list[str](), list[str]()
    if common:
        right = [_right(one, common, new_bar) for one in (first, other)]
        scores = compare_paired(*right)
        first_right = [name for name, a, b in zip(common, *right, strict=True) if a and not b]
        this_right = [name for name, a, b in zip(common, *right, strict=True) if b and not a]
    return OtherRun(
        run_dir=str(other.trained.run.directory),
        config=_config_differences(first, other),
        data=_data_differences(first, other),
        scores=scores,
        why_not=why_not,
        first_right=first_right,
        this_right=this_right,
    )


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


def _right(opened: _Opened, names: Sequence[str], new_bar: NewBar) -> Tensor:
    """Tell of which images a model names exactly the right classes (N,)."""
    samples = {sample.name: sample for sample in opened.index.of_split("val")}
    index = replace(opened.index, samples=tuple(samples[name] for name in names))
    logits, targets = split_logits(opened.trained, index, "val", new_bar)
    return opened.trained.task.is_right(opened.trained.assigned(logits), targets)


def show_comparison(compared: ComparedRuns, display: Display) -> None:
    """Show what differs, the scores side by side, and whether they differ by more than chance."""
    names = _short_names(compared.runs)
    rows = [
        (name, f"{best['accuracy']:.2%}", f"{best['map']:.4f}", f"{best['loss']:.4f}", len(history))
        for name, best, history in zip(names, compared.best, compared.histories, strict=True)
    ]
    display.table(("run", "accuracy", "mAP", "loss", "epochs"), rows, paths=("run",))
    show_curves(compared, names, display)
    for name, other in zip(names[1:], compared.others, strict=True):
        display.say(f"\n{name} beside {names[0]}")
        if other.config:
            display.table(("key", names[0], name), list(other.config))
        else:
            display.say("their configs are the same")
        for line in other.data or ["their images are the same"]:
            display.say(line)
        show_paired(other, names[0], name, display)


def show_curves(compared: ComparedRuns, names: Sequence[str], display: Display) -> None:
    """Show the validation accuracy of all runs, epoch by epoch."""
    longest = max(map(len, compared.histories))
    rows = [
        (epoch + 1, *(f"{h[epoch].val_accuracy:.2%}" if epoch < len(h) else "–" for h in compared.histories))
        for epoch in range(longest)
    ]
    shown = rows if longest <= _LISTED else [rows[i * (longest - 1) // (_LISTED - 1)] for i in range(_LISTED)]
    display.say("")
    display.table(("accuracy after epoch", *names), shown)


def show_paired(other: OtherRun, first: str, this: str, display: Display) -> None:
    """Show how the two answer for the images that both validate on."""
    scores = other.scores
    if scores is None:
        display.say(f"not compared image by image: {other.why_not}")
        return
    ahead = f"{100 * scores.difference:+.1f} points ({100 * scores.low:+.1f} to {100 * scores.high:+.1f})"
    verdict = "more than chance" if scores.p_value < 1 - LEVEL else "no more than chance would do"
    display.say(
        f"of {counted(scores.images, 'image')} that both validate on {scores.first_only:,} are right in "
        f"{first} alone, {scores.second_only:,} in {this} alone: {ahead}, p = {scores.p_value:.2g}, {verdict}"
    )
    for whose, images in ((first, other.first_right), (this, other.this_right)):
        if images:
            more = f" and {len(images) - _LISTED:,} more (--json lists all)" if len(images) > _LISTED else ""
            display.say(f"right in {whose} alone: {', '.join(map(printable, images[:_LISTED]))}{more}")


def _short_names(runs: Sequence[str]) -> list[str]:
    """Return the names of the runs' folders, or whole paths where these are the same."""
    names = [Path(run).name for run in runs]
    return names if len(set(names)) == len(names) else list(runs)
