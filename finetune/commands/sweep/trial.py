"""One trial of a sweep: its trainings, one for each seed, and the value that comes of them."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Protocol

from finetune.choices import Monitor, TrialStatus
from finetune.commands.settings import RunOptions
from finetune.commands.sweep.folder import SweepFolder
from finetune.commands.sweep.pruning import Decision, PruningRule, counted_images, decide
from finetune.commands.train.train import train
from finetune.config.config import Config
from finetune.config.sweep_plan import SweepPlan
from finetune.display import Display
from finetune.errors import FinetuneError, Interrupted, Pruned, Stopped
from finetune.machine.files import reported_disk_errors
from finetune.metrics.score import Scores
from finetune.metrics.single_label import SingleLabelScores
from finetune.runs import open_run
from finetune.runs.history import EpochRow
from finetune.runs.records import read_report


class Board(Protocol):
    """Where the epochs of all trials are known."""

    def report(self, number: int, epochs: Mapping[int, float]) -> None:
        """Make the epochs of a trial known: what is monitored, by epoch over all stages."""
        ...

    def others(self, number: int, epoch: int) -> Mapping[int, float]:
        """Return the best so far of every other trial that has had as many epochs, by its number."""
        ...


@dataclass(frozen=True)
class TrialEnd:
    """How a trial has ended."""

    status: TrialStatus
    value: float | None = None
    """the mean over its seeds; None unless it is done"""
    facts: Mapping[str, Any] | None = None
    """to be written down with it"""


def run_trial(
    plan: SweepPlan, folder: SweepFolder, number: int, values: Mapping[str, Any], board: Board
) -> TrialEnd:
    """Train a trial to its end, or on from where it was interrupted.

    Raises:
        Stopped: a signal stopped it; it can be resumed.
        Interrupted: a second one did.
    """
    began, seen = time.perf_counter(), []
    try:
        for index in range(plan.file.seeds):
            config = plan.config(values, index)
            directory = folder.run_directory(number, config.seed, plan.file.seeds)
            watch = Watch(plan, config, folder, number, board) if index == 0 else None
            seen.append(_train(config, directory, folder.log_file(number), watch))
    except Pruned:
        assert watch is not None
        assert watch.decision is not None
        return _end("pruned", began, decision=watch.decision.to_dict(), why=str(watch.decision))
    except (Stopped, Interrupted):
        raise
    except FinetuneError as error:
        return _end("failed", began, error=str(error), exit_code=error.exit_code)
    values_of, losses = [value for value, _ in seen], [loss for _, loss in seen]
    error_of_mean = stdev(values_of) / math.sqrt(len(seen)) if len(seen) > 1 else None
    end = _end("done", began, seed_values=values_of, standard_error=error_of_mean, loss=mean(losses))
    return TrialEnd("done", mean(values_of), end.facts)


def _end(status: TrialStatus, began: float, **facts: object) -> TrialEnd:
    return TrialEnd(status, None, {"seconds": time.perf_counter() - began} | facts)


def _train(config: Config, directory: Path, log: Path, after_epoch: "Watch | None") -> tuple[float, float]:
    """Train, or resume; return the best value of what is monitored, and the validation loss beside it."""
    with reported_disk_errors(log), log.open("a", encoding="utf-8") as stream:
        options = RunOptions(directory, resume=True, after_epoch=after_epoch)
        train(config, options, name=directory.name, display=Display(stream))
    report = read_report(open_run(directory))
    best = report["best"]
    return float(best[report["monitor"]]), float(best["val_loss"])


class Watch:
    """Follows the first training of a trial, and ends it where it is behind others."""

    def __init__(
        self, plan: SweepPlan, config: Config, folder: SweepFolder, number: int, board: Board
    ) -> None:
        pruner = plan.file.pruner
        rule = PruningRule(pruner.name, pruner.after, pruner.least, pruner.margin, plan.maximises)
        self._rule, self._folder, self._number, self._board = rule, folder, number, board
        self._monitor = config.monitor
        self._before = {
            stage.name: sum(earlier.epochs for earlier in config.stages[:place])
            for place, stage in enumerate(config.stages)
        }
        self.decision: Decision | None = None
        """The last one that was not in its favour."""

    def __call__(self, history: Sequence[EpochRow], scores: Scores) -> None:
        """Take the epochs so far, and raise Pruned where the trial ends."""
        monitor = _resolved(self._monitor, scores)
        epochs = {self._before[row.stage] + row.epoch: row.value(monitor) for row in history}
        self._board.report(self._number, {e: value for e, value in epochs.items() if math.isfinite(value)})
        if self._rule.name == "none":
            return
        epoch = max(epochs)
        others = self._board.others(self._number, epoch)
        images = counted_images(scores, monitor)
        decision = decide(self._rule, epoch, list(epochs.values()), others, images)
        if decision is not None:
            self.decision = decision
            self._folder.log(self._number, decision)
            if decision.pruned:
                raise Pruned(f"Trial {self._number} ended early: {decision}.")


def _resolved(monitor: str, scores: Scores) -> Monitor:
    if monitor == "auto":
        return "val_accuracy" if isinstance(scores, SingleLabelScores) else "val_map"
    return monitor


def best_of_others(
    known: Mapping[int, Mapping[int, float]], number: int, epoch: int, *, maximises: bool
) -> dict[int, float]:
    """Return the best until an epoch of every other trial that has come as far, by its number.

    Args:
        known: of each trial, what is monitored by epoch.
        number: the trial that is compared with the others.
        epoch: how many it has had.
        maximises: whether more is better.
    """
    best: Callable[[Sequence[float]], float] = max if maximises else min
    return {
        other: best([value for one, value in epochs.items() if one <= epoch])
        for other, epochs in known.items()
        if other != number and min(epochs, default=epoch + 1) <= epoch <= max(epochs)
    }
