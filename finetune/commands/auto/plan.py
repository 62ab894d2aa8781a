"""Choose the size of the images, the batch and the epochs, by steps of the training that are tried here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from finetune.commands.auto.choices import MOST_EPOCHS, Choices
from finetune.commands.check.stage_cost import measure_stage_costs, stage_cost_loaders
from finetune.config.config import Config
from finetune.errors import ConfigError, ResourceError
from finetune.experiment.build import build_experiment
from finetune.experiment.read_data import ImageData
from finetune.machine.memory import out_of_memory

SIZES = (64, 96, 128, 160, 192, 224)
"""What is tried, in pixels, below what the weights were made for; and that."""

_SHARE = 0.9  # of the time that is left: reading, checkpoints and the report come on top
_SMALLEST_BATCH = 4


class Cost(NamedTuple):
    """What a training takes, in seconds."""

    frozen: float
    """all epochs of the head alone"""
    epoch: float
    """of everything"""

    def of(self, epochs: int) -> float:
        """Return the seconds with some unfrozen epochs."""
        return self.frozen + epochs * self.epoch

    def scaled(self, before: int, after: int) -> "Cost":
        """Return the cost at another size, which goes with the area of the images."""
        ratio = (after / before) ** 2
        return Cost(self.frozen * ratio, self.epoch * ratio)


class Plan(NamedTuple):
    """Choices, and what a training takes with them."""

    choices: Choices
    cost: Cost

    @property
    def seconds(self) -> float:
        """How long the training is expected to take."""
        return self.cost.of(self.choices.epochs)


@dataclass(frozen=True)
class Planner:
    """Tries trainings on this machine, and compares them with the time that is left."""

    config_of: Callable[[Choices], Config]
    device: torch.device
    data: ImageData
    seconds_left: Callable[[], float]

    def plan(self, choices: Choices, largest: int) -> Plan:
        """Choose the largest images whose training fits into the time, else fewer epochs of the smallest.

        Args:
            choices: the network, and the size to try first.
            largest: the side in pixels of the images that its weights were made for.

        Raises:
            ConfigError: the network cannot take images of any of the sizes.
            ResourceError: not even a small batch fits into memory.
        """
        sizes = [size for size in SIZES if size < largest] + [largest]
        start = min(sizes, key=lambda size: abs(size - choices.image_size))
        try:
            measured = {start: self.measure(replace(choices, image_size=start))}
        except ConfigError:  # it takes no other size than its own, or only some
            start = largest
            measured = {start: self.measure(replace(choices, image_size=start))}
        for size in reversed(sizes):
            found = self._if_it_may_fit(choices, size, measured)
            if found is not None and found.cost.of(MOST_EPOCHS) <= self._affordable:
                return _with_reason(found, "the largest whose training fits into the time")
        smallest = measured[min(measured)]
        spare = (self._affordable - smallest.cost.frozen) / smallest.cost.epoch
        epochs = max(0, min(MOST_EPOCHS, int(spare)))
        fewer = Plan(replace(smallest.choices, epochs=epochs), smallest.cost)
        return _with_reason(fewer, "larger ones take more time than there is")

    @property
    def _affordable(self) -> float:
        return _SHARE * self.seconds_left()

    def _if_it_may_fit(self, choices: Choices, size: int, measured: dict[int, Plan]) -> Plan | None:
        """Measure what a size takes, unless it takes too long by what others do, or is impossible."""
        if size not in measured:
            nearest = min(measured, key=lambda other: abs(other - size))
            guess = measured[nearest].cost.scaled(nearest, size)
            if guess.of(MOST_EPOCHS) > self._affordable and size > SIZES[0]:
                return None
            try:
                measured[size] = self.measure(replace(choices, image_size=size))
            except ConfigError:
                return None
        return measured[size]

    def measure(self, choices: Choices) -> Plan:
        """Try a few steps of both stages; the choices that come back have a batch that fits into memory.

        Raises:
            ConfigError: the network cannot take images of this size.
            ResourceError: not even a small batch fits into memory.
        """
        while True:
            try:
                return Plan(choices, self._try(choices))
            except RuntimeError as error:
                known = out_of_memory(error, choices.batch_size)
                if known is None:
                    raise
                if choices.batch_size <= _SMALLEST_BATCH:
                    raise ResourceError(str(known)) from None
            reasons = {**choices.reasons, "batch_size": f"{choices.batch_size} did not fit into memory"}
            choices = replace(choices, batch_size=choices.batch_size // 2, reasons=reasons)

    def _try(self, choices: Choices) -> Cost:
        experiment = build_experiment(self.config_of(choices), self.device, self.data, say=lambda _: None)
        loaders = stage_cost_loaders(experiment)
        costs = [measure_stage_costs(experiment, number, loaders.of_stage(number)) for number in range(2)]
        return Cost(costs[0].seconds, costs[1].seconds / costs[1].epochs)


def _with_reason(plan: Plan, reason: str) -> Plan:
    """Write down why the size of a plan was chosen, and its epochs where they are fewer than usual."""
    reasons = {**plan.choices.reasons, "image_size": reason}
    if plan.choices.epochs < MOST_EPOCHS:
        reasons["epochs"] = f"{MOST_EPOCHS} unfrozen epochs take more time than there is"
    return Plan(replace(plan.choices, reasons=reasons), plan.cost)
