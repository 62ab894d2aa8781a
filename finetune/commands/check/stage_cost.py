"""Try a stage on real batches, to tell beforehand what the training will take."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from finetune.experiment.build import Experiment, loader_workers, plan_groups, stage_cycle
from finetune.experiment.features import caches_features, view_count
from finetune.experiment.loaders import StageLoaders, image_size_of
from finetune.experiment.lr_search import head_trial, stage_trial
from finetune.experiment.recipe import build_average
from finetune.machine.device import forget_peak_memory, peak_memory
from finetune.optim.param_groups import GroupPlan
from finetune.training.averaging import WeightAverage
from finetune.training.events import Loaders

_LONG_ENOUGH = 3.0  # seconds of steps after which their time is known well enough
_MOST_STEPS = 4
_RATE = 1e-6  # any rate will do: what is measured is the time, and the model is not used again


@dataclass(frozen=True)
class StageCost:
    """What a stage will do, and what it takes."""

    name: str
    image_size: int
    """Side in pixels of the images that it trains on."""
    epochs: int
    steps: int
    """In all its epochs."""
    plans: tuple[GroupPlan, ...]
    seconds_per_step: float
    """With the reading of the batch, as far as that does not go on beside it."""
    seconds: float
    """All epochs, validation included; what is computed of images once counts once."""
    peak_memory: int | None
    """Bytes: of a GPU's tensors, or of the whole process; None where the system does not tell."""

    def to_dict(self) -> dict[str, Any]:
        """Return the stage as `check --json` documents it."""
        return {
            "name": self.name,
            "image_size": self.image_size,
            "epochs": self.epochs,
            "steps": self.steps,
            "groups": [plan.summary() for plan in self.plans],
            "seconds_per_step": self.seconds_per_step,
            "seconds": self.seconds,
            "peak_memory": self.peak_memory,
        }


def stage_cost_loaders(experiment: Experiment) -> StageLoaders:
    """Build loaders that read in this process, so that the time of reading can be measured by itself."""
    data = experiment.config.data.model_copy(update={"workers": 0})
    config = experiment.config.model_copy(update={"data": data})
    return StageLoaders(replace(experiment, config=config), most_val=data.batch_size)


def measure_stage_costs(experiment: Experiment, number: int, loaders: Loaders) -> StageCost:
    """Take a few training steps of a stage, and validate one batch.

    The model's weights move a little; it is not for training afterwards.

    Args:
        experiment: the experiment.
        number: which of its stages, counted from 0.
        loaders: those of the stage, from `stage_cost_loaders`.
    """
    config, stage = experiment.config, experiment.config.stages[number]
    trial = stage_trial(experiment, number, loaders)
    moms = stage_cycle(config, trial.new_optimizer()).moms
    forget_peak_memory(experiment.device)
    read = _seconds(iter(_batches(loaders, number)))
    schedule = [(_RATE, None if moms is None else moms[1])] * _MOST_STEPS
    average = build_average(config, trial.new_step())
    whole = _seconds(trial.steps(schedule)) + _seconds(_updates(average))
    if average is not None:
        average.put_into_model()
    started = time.perf_counter()
    trial.validate()
    validated = time.perf_counter() - started
    memory = peak_memory(experiment.device)
    workers = loader_workers(experiment)
    step = _side_by_side(whole, read, workers)
    batch = _side_by_side(validated, read / config.data.accumulate, workers)
    steps = len(loaders.train) * stage.epochs
    batches = -(-experiment.index.count("val") // config.data.batch_size)
    plans = plan_groups(config, stage, experiment.model)
    if caches_features(experiment, stage):
        computed = len(loaders.train) * view_count(stage)
        alone = head_trial(experiment, trial, _MOST_STEPS)
        seconds = computed * step + (steps - computed) * _seconds(alone.steps(schedule)) + batches * batch
    else:
        seconds = steps * step + batches * stage.epochs * batch
    size = image_size_of(experiment, stage)
    return StageCost(stage.name, size, stage.epochs, steps, tuple(plans), step, seconds, memory)


def _batches(loaders: Loaders, stage: int) -> Iterator[object]:
    loaders.train.sampler.start_epoch(stage, 0)  # type: ignore[attr-defined]
    yield from loaders.train


def _updates(average: WeightAverage | None) -> Iterator[None]:
    """Let the average of a training follow its weights, step by step; no steps where it has none."""
    if average is not None:
        for step in range(_MOST_STEPS):
            average.update(step)
            yield


def _seconds(steps: Iterator[object]) -> float:
    """Return the median time of a step; the first, which also allocates, counts only if it is alone."""
    times: list[float] = []
    while len(times) < _MOST_STEPS and sum(times[1:]) < _LONG_ENOUGH:
        started = time.perf_counter()
        if next(steps, _END) is _END:
            break
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:] or times or [0.0])


_END = object()


def _side_by_side(whole: float, read: float, workers: int) -> float:
    """Return the seconds of a step when `workers` processes read the batches beside it."""
    return whole if workers == 0 else max(whole - read, read / workers)
