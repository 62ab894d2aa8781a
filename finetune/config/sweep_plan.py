"""A sweep that was checked: what all trials share, what is searched, and the config of each training."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from finetune.choices import Monitor
from finetune.config.config import Config
from finetune.config.load import parse_config
from finetune.config.overrides import key_parts
from finetune.config.python_values import Override
from finetune.config.search_space import Dimension, Sample, samples_to_values, settings
from finetune.config.sweep_file import SweepFile
from finetune.config.yaml_reader import read_yaml
from finetune.config.yaml_writer import dump_config, write_value
from finetune.metrics.monitor import prefers_more


@dataclass(frozen=True)
class SweepPlan:
    """A sweep that was checked: what every trial shares, and what is searched."""

    file: SweepFile
    space: tuple[Dimension, ...]
    """each key after those that it depends on"""
    texts: "SweepTexts"
    fixed: tuple[Override, ...]

    def config(self, values: Mapping[str, Any], number: int = 0) -> Config:
        """Return the config of a training.

        Args:
            values: of the keys of the space that are there.
            number: which of the trial's seeds, counted from 0.

        Raises:
            ConfigError: these values do not go together.
        """
        by_key = {dimension.key: dimension for dimension in self.space}
        overrides = [by_key[key].override(value) for key, value in values.items()]
        return self._parse((*self.fixed, *overrides, *self._seeds(number)))

    def _parse(self, overrides: Sequence[Override]) -> Config:
        return parse_config(self.texts.base, self.texts.base_source, overrides)

    def _seeds(self, number: int) -> tuple[Override, ...]:
        """Return the seed of a training; the images that are judged stay those of the base."""
        if self.file.seeds == 1:
            return ()
        seed, split = self.base.seed, self.base.data.split_seed
        source = f"{self.texts.source} seeds"
        return (
            Override(("seed",), seed + number, source),
            Override(("data", "split_seed"), seed if split is None else split, source),
        )

    @cached_property
    def base(self) -> Config:
        """The base with what is set for all trials."""
        return self._parse(self.fixed)

    @property
    def monitor(self) -> Monitor:
        """What is searched for, as the config says it."""
        return self.base.monitor

    @property
    def maximises(self) -> bool:
        """Whether more is better."""
        return self.monitor == "auto" or prefers_more(self.monitor)

    def base_samples(self) -> dict[str, Sample] | None:
        """Return what would have to be drawn for the base itself; None if it is not in the space."""
        values = json.loads(self.base.model_dump_json())
        found: dict[str, Sample] = {}
        for dimension in self.space:
            if not dimension.is_active(samples_to_values(self.space, found)):
                continue
            sample = dimension.sample_of(_value_at(values, key_parts(dimension.key)))
            if sample is None:
                return None
            found[dimension.key] = sample
        return found

    def grid(self) -> list[dict[str, Sample]]:
        """Return every combination of a grid."""
        return list(settings(self.space, grid=True))

    def identity(self) -> dict[str, str]:
        """Return what makes trials comparable, by name: with another of these it is another sweep."""
        return {
            "space": write_value(dict(read_yaml(self.texts.sweep, self.texts.source).value["space"])),
            "seeds": str(self.file.seeds),
            "sampler": write_value(self.file.sampler.model_dump(mode="json")),
            "base": dump_config(self.base),
        }


@dataclass(frozen=True)
class SweepTexts:
    """A sweep file and its base as they were read, so that a sweep goes on though they change."""

    sweep: str
    source: str
    base: str
    base_source: str


def _value_at(values: Any, parts: Sequence[str]) -> Any:
    """Return the value of a key in plain values; None where there is none."""
    for part in parts:
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list):
            named = [item for item in values if isinstance(item, dict) and item.get("name") == part]
            place = int(part) if part.isdigit() and int(part) < len(values) else None
            values = named[0] if named else None if place is None else values[place]
        else:
            return None
    return values
