"""The space of a sweep: for each key of the config which values are tried, and on what that depends."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from finetune.choices import DimensionKind
from finetune.config.overrides import key_parts
from finetune.config.python_values import Override
from finetune.config.yaml_writer import write_value

Sample = float | int | str
"""What a sampler draws: a number, or of choices the label of one."""

_DIGITS = 4  # of a number that is drawn: more say nothing, and are hard to read
X = re.compile(r"\bx\b(?:\s*/\s*([0-9.]+))?")
"""the number in a template, perhaps divided by another one"""


@dataclass(frozen=True)
class Dimension:
    """A key of the config that a sweep varies."""

    key: str
    place: str
    """where it stands: `sweep.yaml:7`"""
    kind: DimensionKind
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Any, ...] = ()
    points: int | None = None
    """how many values a grid takes from a range"""
    template: str | None = None
    """the value with `x` for the number, such as `slice(x/10, x)`"""
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """values of other keys with which this one is there"""

    @property
    def labels(self) -> tuple[str, ...]:
        """The choices as they are written in YAML."""
        return tuple(map(write_value, self.choices))

    def value(self, sample: Sample) -> Any:
        """Return the value of the config for what was drawn; numbers are rounded to four digits."""
        if self.kind == "choices":
            return self.choices[self.labels.index(str(sample))]
        number = self._rounded(float(sample))
        return number if self.template is None else _filled(self.template, number)

    def _rounded(self, number: float) -> float | int:
        if self.kind == "int":
            return round(number)
        return min(max(float(f"{number:.{_DIGITS}g}"), self.low), self.high)

    def sample_of(self, value: object) -> Sample | None:
        """Return what would have to be drawn for a value of the config; None if it is outside."""
        if self.kind == "choices":
            label = write_value(value)
            return label if label in self.labels else None
        text = None if self.template is None else _as_pattern(self.template, str(value))
        number = value if self.template is None else text
        if not isinstance(number, int | float) or isinstance(number, bool):
            return None
        return number if self.low <= number <= self.high else None

    def corners(self) -> list[Sample]:
        """Return every choice, or both ends of a range."""
        if self.kind == "choices":
            return list(self.labels)
        ends = dict.fromkeys((self.low, self.high))
        return [int(end) if self.kind == "int" else end for end in ends]

    def grid(self) -> list[Sample]:
        """Return the values of a grid: every choice or whole number, or `points` evenly over the range."""
        if self.kind == "choices":
            return list(self.labels)
        count = self.points
        if count is None:
            return list(range(int(self.low), int(self.high) + 1))
        shares = [number / (count - 1) for number in range(count)] if count > 1 else [0.5]
        if self.kind == "log":
            ratio = self.high / self.low
            found: list[float] = [self.low * ratio**share for share in shares]
        else:
            found = [self.low + (self.high - self.low) * share for share in shares]
        return list(dict.fromkeys(self._rounded(number) for number in found))

    @property
    def is_finite(self) -> bool:
        """Whether a grid can take all that is asked for."""
        return self.kind in ("choices", "int") or self.points is not None

    def is_active(self, values: Mapping[str, Any]) -> bool:
        """Tell whether the key is there, by the values of those that it depends on."""
        return all(key in values and values[key] in allowed for key, allowed in self.when.items())

    def override(self, value: object) -> Override:
        """Return the value as an override of the base config."""
        return Override(tuple(key_parts(self.key)), value, self.place)


def _filled(template: str, number: float) -> str:
    def share(match: re.Match[str]) -> str:
        divided = number / float(match[1]) if match[1] else number
        return write_value(float(f"{divided:.{_DIGITS}g}"))

    return X.sub(share, template)


def _as_pattern(template: str, text: str) -> float | None:
    """Return the number with which a template gives a text; None if there is none."""
    numbers = [float(found) for found in re.findall(r"[0-9.]+(?:e[-+]?[0-9]+)?", text)]
    fits = [number for number in numbers if _same(_filled(template, number), text)]
    return fits[0] if fits else None


def _same(one: str, other: str) -> bool:
    def spelled(text: str) -> str:
        return re.sub(r"[0-9.]+(?:e[-+]?[0-9]+)?", lambda n: repr(float(n[0])), text.replace(" ", ""))

    return spelled(one) == spelled(other)


def samples_to_values(space: Sequence[Dimension], samples: Mapping[str, Sample]) -> dict[str, Any]:
    """Return the values of the config for what was drawn, of the keys that are there."""
    values: dict[str, Any] = {}
    for dimension in space:
        if dimension.is_active(values) and dimension.key in samples:
            values[dimension.key] = dimension.value(samples[dimension.key])
    return values


def settings(space: Sequence[Dimension], *, grid: bool) -> Iterator[dict[str, Sample]]:
    """Return every combination of the grid, or of the corners; one that conditions make equal comes once."""
    lists = [dimension.grid() if grid else dimension.corners() for dimension in space]
    seen = set()
    for combination in product(*lists):
        samples = dict(zip((d.key for d in space), combination, strict=True))
        there = samples_to_values(space, samples)
        active = tuple((key, samples[key]) for key in there)
        if active not in seen:
            seen.add(active)
            yield dict(active)
