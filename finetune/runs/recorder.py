"""Write down a training as it goes along: every step, every epoch, and the best model so far."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from finetune.choices import Monitor
from finetune.errors import DivergenceError
from finetune.machine.ranks import ALONE, Ranks
from finetune.metrics.monitor import is_better
from finetune.metrics.score import Scores, scores_from_dict
from finetune.runs import Run
from finetune.runs.history import EpochRow
from finetune.training.early_stopping import EarlyStopping, Stop, find_stop
from finetune.training.events import Epoch, EventSink, Step, with_epochs
from finetune.training.state import weights_on_cpu

SHARE = 0.02
"""part of the time that what is saved between epochs may take, 0–1; a model, and a checkpoint"""


class RunRecorder:
    """The record of one training, in its run directory.

    The best model is the best of all stages by `monitor`; of equal ones that of the lowest validation loss
    is kept, and of those the first.
    """

    def __init__(
        self,
        run: Run,
        *,
        monitor: Monitor,
        description: Mapping[str, object],
        epochs: Mapping[str, int],
        early_stopping: EarlyStopping | None = None,
        sink: EventSink | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Begin a record.

        Args:
            run: the directory it is kept in.
            monitor: what makes a model the best.
            description: all that is needed to rebuild the model.
            epochs: how many each stage is to have, in their order.
            early_stopping: when a stage ends sooner; None for never.
            sink: what else takes the events.
            ranks: the processes that train together, which may hold some rows of the weights each.
        """
        self.ranks = ranks
        """Who train together; each may hold some rows of the weights."""
        self._run, self._monitor, self._description = run, monitor, description
        self._epochs, self._early_stopping, self._sink = epochs, early_stopping, sink
        self._steps: list[dict[str, object]] = []  # not on disk yet
        self.steps: dict[str, dict[int, Mapping[str, Any]]] = {}
        """What was recorded of each optimizer step, by stage and number in it, from 1."""
        self.history: list[EpochRow] = []
        self._best_weights: dict[str, Tensor] | None = None
        self._unsaved = False  # of the best model
        self._saved_at, self._cost = -math.inf, 0.0  # when it was saved, and the seconds that this took
        self._best: tuple[EpochRow, Scores] | None = None
        self._stage: str | None = None
        self._step: int | None = None

    def place(self) -> dict[str, str | int | None]:
        """Return the stage, and its last step that is recorded, counted from 1; None before the first."""
        return {"stage": self._stage, "step": self._step}

    @property
    def best(self) -> EpochRow:
        """The epoch whose model is kept; there is one as soon as an epoch is done."""
        assert self._best is not None
        return self._best[0]

    @property
    def best_scores(self) -> Scores:
        """The validation scores of the model that is kept."""
        assert self._best is not None
        return self._best[1]

    @property
    def best_weights(self) -> Mapping[str, Tensor]:
        """The weights of the model that is kept, on the CPU.

        They are read from the run only if an earlier process trained them.
        """
        return self._run.load_model()[0] if self._best_weights is None else self._best_weights

    @property
    def best_description(self) -> dict[str, Any]:
        """The content of model.json: all that is needed to rebuild and use the model that is kept."""
        return {
            **self._description,
            "best": self.best.to_dict(),
            "thresholds": self.best_scores.thresholds,
        }

    @property
    def early_stops(self) -> list[Stop]:
        """The stages that are over before their last epoch, and why; read from the history alone."""
        stops = (self.early_stop_of(stage) for stage in self._epochs)
        return [stop for stop in stops if stop is not None]

    def early_stop_of(self, stage: str) -> Stop | None:
        """Tell whether a stage is over before its last epoch, and why."""
        rule = self._early_stopping
        if rule is None:
            return None
        values = [row.value(rule.metric) for row in self.history if row.stage == stage]
        return find_stop(stage, values, self._epochs[stage], rule)

    def state(self) -> dict[str, Any]:
        """Return all that the record holds, as JSON can hold it; what it has written reaches the disk."""
        self.flush()
        return {
            "history": [row.to_dict() for row in self.history],
            "best": self._best and {"row": self._best[0].to_dict(), "scores": self._best[1].to_dict()},
            "step": self._step,
            "events_size": self._run.events_size(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the record where `state` was taken; what was written after it is forgotten."""
        self.history = [EpochRow.from_dict(row) for row in state["history"]]
        best = state["best"]
        if best is not None:
            row = next(row for row in self.history if row.to_dict() == best["row"])
            self._best = row, scores_from_dict(best["scores"])
        self._step = state["step"]
        self._run.cut_events(state["events_size"])
        earlier = self._run.read_events()
        for event in with_epochs(earlier, state["history"]):
            if event.get("event") == "step":
                self._remember(event)
            self._tell(event)
        self._run.write_history([row.to_dict() for row in self.history])

    def forget(self) -> None:
        """Begin anew: what was written before is done again."""
        self._run.cut_events(0)
        self._run.write_history([])

    def add_resume(self, where: str, changes: Sequence[str]) -> None:
        """Record that training was resumed, from where, and what has changed since it began."""
        self._append({"event": "resume", "from": where, "changes": list(changes)})

    def start_stage(self, stage: str, groups: Sequence[Mapping[str, object]]) -> None:
        """Record that a stage begins, and what it trains at which rates."""
        self._stage, self._step = stage, None
        self._append({"event": "stage", "stage": stage, "groups": groups})

    def add_lr_find(self, stage: str, **outcome: float | list[str] | None) -> None:
        """Record that a rate was looked for, and what came of it."""
        self._stage, self._step = stage, None
        self._append({"event": "lr_find", "stage": stage, **outcome})

    def add_first_score(self, stage: str, name: Monitor, score: float) -> None:
        """Record what a linear fit to the features reaches before a stage trains anything."""
        self._append({"event": "first_score", "stage": stage, name: score})

    def add_step(self, stage: str, step: Step) -> None:
        """Record one optimizer step; it reaches the disk with its epoch."""
        self._step = step.step + 1
        event = {"event": "step", "stage": stage, **asdict(step)}
        event |= {"epoch": step.epoch + 1, "step": step.step + 1}
        self._steps.append(event)
        self._remember(event)
        self._tell(event)

    def _remember(self, event: Mapping[str, Any]) -> None:
        """Keep of a step what the diagnosis reads; one that was repeated after a resume counts once."""
        kept = {key: event[key] for key in ("step", "loss", "lrs", "grad_norm")}
        self.steps.setdefault(event["stage"], {})[event["step"]] = kept

    def add_epoch(
        self,
        stage: str,
        epoch: Epoch,
        scores: Scores,
        model: nn.Module,
        of_packages: Mapping[str, float] = MappingProxyType({}),
    ) -> EpochRow:
        """Record one epoch, and keep the model if it is the best so far.

        It is saved at once, unless epochs are so short that this would take more than a few percent of the
        time: then soon, and with the next checkpoint or `flush` at the latest.

        Raises:
            DivergenceError: the validation loss is not finite.
        """
        if not math.isfinite(scores.loss):
            raise DivergenceError(
                f"The validation loss is {scores.loss} after epoch {epoch.epoch + 1} of stage {stage}.\n"
                "Try a rate three times lower (stages.N.lr). The best model so far is in the run directory.",
                step=self._step,
            )
        row = _row_of(stage, epoch, scores, of_packages)
        self.history.append(row)
        self._tell({"event": "epoch", **row.to_dict()})
        if self.ranks.of_first(self._is_best(row)):
            self._best = row, scores
            self._keep_weights(model)
        if self._unsaved and time.perf_counter() - self._saved_at >= self._cost / SHARE:
            self._save_best()
        self._run.write_history([row.to_dict() for row in self.history])
        self._write_steps()
        if (stop := self.early_stop_of(stage)) is not None:
            self._append({"event": "early_stop", **asdict(stop)})
        return row

    def _keep_weights(self, model: nn.Module) -> None:
        self._best_weights = weights_on_cpu(model, self.ranks)
        self._unsaved = True

    def flush(self) -> None:
        """Write what is still in memory, for instance when training stops early."""
        if self._unsaved:
            self._save_best()
        self._write_steps()

    def end(self, state: str) -> None:
        """Tell what else takes the events that the training has ended, in the words of status.json."""
        if self._sink is not None:
            self._sink.close(state, {} if self._best is None else self.best.to_dict())

    def _append(self, event: Mapping[str, object]) -> None:
        self._run.append_events([event])
        self._tell(event)

    def _tell(self, event: Mapping[str, Any]) -> None:
        if self._sink is not None:
            self._sink.add(event)

    def _save_best(self) -> None:
        began = time.perf_counter()
        self._run.save_model(self.best_weights, self.best_description)
        self._unsaved, self._saved_at = False, time.perf_counter()
        self._cost = self._saved_at - began

    def _write_steps(self) -> None:
        self._run.append_events(self._steps)
        self._steps = []

    def _is_best(self, row: EpochRow) -> bool:
        if self._best is None:
            return is_better(self._value(row), None, self._monitor)
        value, best = self._value(row), self._value(self.best)
        if value == best:  # on few images many epochs are right as often
            return is_better(row.val_loss, self.best.val_loss, "val_loss")
        return is_better(value, best, self._monitor)

    def _value(self, row: EpochRow) -> float:
        return row.value(self._monitor)


def _row_of(stage: str, epoch: Epoch, scores: Scores, of_packages: Mapping[str, float]) -> EpochRow:
    return EpochRow(
        stage=stage,
        epoch=epoch.epoch + 1,
        train_loss=epoch.train_loss,
        val_loss=scores.loss,
        val_accuracy=scores.accuracy,
        val_balanced_accuracy=scores.balanced_accuracy,
        val_macro_f1=scores.macro_f1,
        val_map=scores.map,
        seconds=round(epoch.seconds, 3),
        images_per_second=round(epoch.images_per_second, 1),
        of_packages=dict(of_packages),
    )
