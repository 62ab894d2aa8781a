"""When a training is saved, and with what, so that it can be resumed as if it had never stopped."""

import math
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from finetune.errors import ResourceError, Stopped
from finetune.machine.signals import StopSignals
from finetune.optim.learning_rates import LearningRate, parse_lr
from finetune.runs import STATUS, Run, Stored
from finetune.runs.checkpoint_writer import CheckpointWriter
from finetune.runs.recorder import SHARE, RunRecorder
from finetune.text import printable
from finetune.training.averaging import WeightAverage
from finetune.training.events import START, Moment, Reached
from finetune.training.state import restore_model, training_tensors


@dataclass(frozen=True)
class Saved:
    """Where a training stood when it was saved."""

    stage: int
    reached: Reached
    lrs: tuple[LearningRate, ...]
    """The rate of each stage as its config says it, found ones included."""
    seconds: float
    """Time that the run took up to here."""
    recorder: Mapping[str, Any]
    tensors: dict[str, Tensor]
    """Nothing, once the stage has them."""


@dataclass(frozen=True)
class CheckpointSchedule:
    """When checkpoints are written that nothing else calls for, and how many are kept."""

    seconds: float = math.inf
    """From one to the next, at most."""
    steps: float = math.inf
    """From one to the next, at most."""
    keep: int = 2
    share: float = SHARE

    def due(self, moment: Moment, *, seconds: float, steps: int, cost: float) -> bool:
        """Return whether it is time for the next one.

        After an epoch there is one if `seconds` are enough for the share. A schedule by steps
        always gives the same checkpoints, those after epochs among them.

        Args:
            moment: what has just ended.
            seconds: time since the last checkpoint.
            steps: steps since then.
            cost: seconds that the last checkpoint took; 0 if there was none.
        """
        if seconds >= self.seconds or steps >= self.steps:
            return True
        return moment == "epoch" and (self.steps < math.inf or seconds >= cost / self.share)


class Checkpointer:
    """Saves a training: in its schedule, at the end of a stage, and when a signal asks it to stop."""

    def __init__(
        self,
        run: Run,
        model: nn.Module,
        recorder: RunRecorder,
        *,
        schedule: CheckpointSchedule,
        stop: StopSignals,
        warn: Callable[[str], None],
        in_thread: bool = False,
    ) -> None:
        """Begin to count the time of a training; `in_thread` lets it go on while a checkpoint is written."""
        self._run, self._model, self._recorder = run, model, recorder
        self._schedule, self._stop, self._warn = schedule, stop, warn
        self._started = self._last = time.perf_counter()
        self._cost, self._steps = 0.0, 0
        self._writer = CheckpointWriter(run.checkpoints, keep=schedule.keep) if in_thread else None
        self._stage, self._lrs = 0, tuple[LearningRate, ...]()
        self.stage_name = ""
        """Stage that is trained now."""
        self._optimizer: torch.optim.Optimizer | None = None
        self._average: WeightAverage | None = None

    def resume(self, *, newest: object = None) -> Saved | None:
        """Take the newest checkpoint, restore model and recorder, and say where training stands; or None.

        `newest` is the one that the status of the run names last; it is warned of if it is gone.

        Raises:
            CheckpointError: it is damaged, or of another model.
        """
        there = self._run.checkpoints.names()
        if isinstance(newest, str) and newest > max(there, default=""):
            what = "the one before it is used" if there else "training begins anew"
            self._warn(f"the checkpoint {printable(newest)}, the newest by {STATUS}, is gone; {what}")
        stored = self._run.checkpoints.load_newest(self._warn)
        if stored is None:
            self._recorder.forget()
            return None
        state = stored.state
        saved = Saved(
            stage=state["stage"],
            reached=Reached(**state["reached"]),
            lrs=tuple(parse_lr(lr) for lr in state["lrs"]),
            seconds=state["seconds"],
            recorder=state["recorder"],
            tensors=dict(stored.tensors),
        )
        self.restore(saved)
        return saved

    def restore(self, saved: Saved) -> None:
        """Put back what was saved: into the model and the record.

        Raises:
            CheckpointError: it is of another model.
        """
        restore_model(self._model, saved.tensors)
        self._recorder.restore(saved.recorder)
        self._started -= saved.seconds

    @property
    def seconds(self) -> float:
        """Time that the run has taken, before earlier stops too."""
        return time.perf_counter() - self._started

    def check_space(self, *, averaged: bool = False) -> None:
        """Make sure that the disk has room for what will be written, with an average of the weights or not.

        Raises:
            ResourceError: it has not.
        """
        size = sum(t.numel() * t.element_size() for t in self._model.state_dict().values())
        # A checkpoint holds the weights, up to two values of the optimizer for each, and the average.
        needed = 2 * size + (self._schedule.keep + 1) * (4 if averaged else 3) * size
        free = shutil.disk_usage(self._run.directory).free
        if free < needed:
            raise ResourceError(
                f"No space left in {self._run.directory}: training needs about {needed / 2**20:.0f} MiB, "
                f"{free / 2**20:.0f} MiB are free.\nFree some, set output.dir or --run-dir to another disk, "
                "or checkpoint.keep=1."
            )

    def start_stage(self, number: int, name: str, lrs: tuple[LearningRate, ...]) -> None:
        """Set which stage begins, or is resumed, and at which rates; it has no optimizer yet."""
        self.finish_writing()  # processes that load images are forked now, without threads
        self._stage, self.stage_name, self._lrs = number, name, lrs
        self._optimizer, self._average = None, None

    def follow(self, optimizer: torch.optim.Optimizer, average: WeightAverage | None = None) -> None:
        """Say whose state is to be saved with the model."""
        self._optimizer, self._average = optimizer, average

    def due(self, moment: Moment) -> bool:
        """Tell, after each step, validation batch and epoch, whether it is time to save."""
        self._steps += moment == "step"
        waited = time.perf_counter() - self._last
        wanted = self._schedule.due(moment, seconds=waited, steps=self._steps, cost=self._cost)
        if self._writer is not None:
            if self._writer.busy:
                wanted = wanted and self._schedule.steps < math.inf  # what it costs is not known yet
            else:
                self.finish_writing()
        # All ranks save together, by the clock of the first.
        return self._stop.asked(also=wanted)

    def save(self, reached: Reached = START) -> None:
        """Save the training as it stands, and stop it if a signal came.

        If the disk is full, that is reported, and training continues: the next time may succeed.

        Raises:
            Stopped: a signal came; everything is saved.
            ResourceError: a signal came, and nothing could be saved.
        """
        self.finish_writing()
        began = time.perf_counter()
        try:
            self._write(reached)
        except ResourceError as error:
            self._report(error)
        self._last, self._steps = time.perf_counter(), 0
        self._cost = self._last - began
        if self._stop.asked():
            self.finish_writing()
            raise Stopped(
                f"Stopped by {self._stop.received} and saved: stage {self.stage_name}, {_where(reached)}.\n"
                + how_to_resume(self._run)
            )

    def finish_writing(self) -> None:
        """Wait for the checkpoint that is being written, if there is one, and say that it is there.

        Raises:
            ResourceError: a signal came, and nothing could be saved.
        """
        if self._writer is None:
            return
        try:
            written = self._writer.finish()
        except ResourceError as error:
            self._report(error)
            return
        if written is not None:
            name, seconds = written
            self._cost += seconds
            self._note(name)

    def close(self) -> None:
        """Let what is being written come to its end, after which nothing can be saved."""
        if self._writer is not None:
            self._writer.close()

    def _report(self, error: ResourceError) -> None:
        if self._stop.received is not None:
            raise error
        self._warn(f"{error} Training continues without this checkpoint.")

    def _note(self, name: str) -> None:
        self._run.write_status("running", 0, resumable=True, last_checkpoint=name, **self._recorder.place())

    def _write(self, reached: Reached) -> None:
        state = {
            "stage": self._stage,
            "reached": asdict(reached),
            "lrs": [lr.written for lr in self._lrs],
            "seconds": self.seconds,
            "recorder": self._recorder.state(),
        }
        name = checkpoint_name(self._stage, reached)
        tensors = training_tensors(self._model, self._optimizer, self._average, ranks=self._recorder.ranks)
        checkpoint = Stored(name, tensors, state)
        if self._writer is not None:
            self._writer.start(checkpoint)
            return
        self._run.checkpoints.save(checkpoint, keep=self._schedule.keep)
        self._note(name)


def checkpoint_name(stage: int, reached: Reached) -> str:
    """Return what a checkpoint is called; names sort in the order of the training."""
    return f"{stage:02}-{reached.epoch:06}-{reached.batch:09}"


def how_to_resume(run: Run) -> str:
    """Return the line that says how to resume a run."""
    return f"Resume with: finetune train --resume {shlex.quote(str(run.directory))}"


def _where(reached: Reached) -> str:
    if reached.batch:
        return f"epoch {reached.epoch + 1}, batch {reached.batch}"
    return "its beginning" if reached == START else f"after epoch {reached.epoch}"
