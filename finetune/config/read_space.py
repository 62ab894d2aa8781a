"""Read the space of a sweep file, and say of each mistake where it stands."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, get_args

from finetune.choices import DimensionKind
from finetune.config.problems import Mistake
from finetune.config.search_space import Dimension, X
from finetune.config.yaml_reader import Document, Path
from finetune.config.yaml_writer import write_value

_MOST_CHOICES = 1000


def read_space(document: Document) -> tuple[tuple[Dimension, ...], list[Mistake]]:
    """Read the space of a sweep file; return its keys, each after those that it depends on, and mistakes."""
    mistakes: list[Mistake] = []
    found: dict[str, Dimension] = {}
    for key, written in document.value["space"].items():
        reader = _Entry(document, key)
        dimension = reader.read(written)
        mistakes += reader.mistakes
        if dimension is not None:
            found[key] = dimension
    mistakes += _condition_mistakes(document, found)
    return _parents_first(found), mistakes


@dataclass
class _Entry:
    """Reads what stands at one key of the space."""

    document: Document
    key: str
    mistakes: list[Mistake] = field(default_factory=list)

    def refuse(self, text: str, *below: str) -> None:
        """Note a mistake at the key, or at what stands below it."""
        path: Path = ("space", self.key, *below)
        mark = self.document.marks[path]
        name = ".".join([self.key, *below])
        self.mistakes.append(((mark.line, 0), f"{mark.place} {name}: {text}"))

    def read(self, written: Any) -> Dimension | None:
        """Return the dimension; None where it says nothing possible."""
        place = self.document.marks[("space", self.key)].place
        if isinstance(written, list):
            written = {"choices": written}
        if not isinstance(written, dict):
            got = self.document.marks[("space", self.key)].written
            self.refuse(
                f"expected a list of choices, or {{log: [low, high]}}, uniform or int; got {got}; "
                "a value for all trials stands under set"
            )
            return None
        kinds = [name for name in get_args(DimensionKind) if name in written]
        self._unknown_words(written)
        if len(kinds) != 1:
            self.refuse("expected one of log, uniform, int, choices, or a list of choices")
        if self.mistakes:
            return None
        kind: DimensionKind = kinds[0]
        when = self._conditions(written.get("when", {}))
        if kind == "choices":
            choices = self._choices(written["choices"])
            return None if self.mistakes else Dimension(self.key, place, kind, choices=choices, when=when)
        low, high = self._range(written[kind], kind)
        points, template = self._points(written.get("points")), self._template(written.get("as"))
        if self.mistakes:
            return None
        return Dimension(self.key, place, kind, low, high, points=points, template=template, when=when)

    def _unknown_words(self, written: Mapping[str, Any]) -> None:
        kinds = get_args(DimensionKind)
        words = (*kinds, "when") if "choices" in written else (*kinds, "points", "as", "when")
        for word in written:
            if word not in words:
                near = get_close_matches(word, words, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(words)}"
                self.refuse(f"unknown key; {hint}", word)

    def _choices(self, written: Any) -> tuple[Any, ...]:
        if not isinstance(written, list) or not 1 <= len(written) <= _MOST_CHOICES:
            self.refuse("expected a list of choices")
            return ()
        labels = [write_value(choice) for choice in written]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            self.refuse(f"{twice} stands there twice")
        return tuple(written)

    def _range(self, written: Any, kind: DimensionKind) -> tuple[float, float]:
        numbers = written if isinstance(written, list) else []
        whole = all(isinstance(number, int) for number in numbers)
        if len(numbers) != 2 or not all(_is_number(number) for number in numbers):
            self.refuse("expected two numbers, [low, high]", kind)
        elif kind == "int" and not whole:
            self.refuse("expected two whole numbers, [low, high]", kind)
        elif numbers[0] >= numbers[1]:
            self.refuse(f"{numbers[0]:g} is not below {numbers[1]:g}; the lower end comes first", kind)
        elif kind == "log" and numbers[0] <= 0:
            self.refuse(f"the lower end has to be above 0, got {numbers[0]:g}; or write uniform", kind)
        else:
            return (numbers[0], numbers[1])
        return (0.0, 1.0)

    def _points(self, written: Any) -> int | None:
        if written is None or (isinstance(written, int) and 1 <= written <= _MOST_CHOICES):
            return written
        self.refuse("expected a whole number of at least 1", "points")
        return None

    def _template(self, written: Any) -> str | None:
        if written is None or (isinstance(written, str) and X.search(written)):
            return written
        self.refuse("expected text with x for the number, such as slice(x/10, x)", "as")
        return None

    def _conditions(self, written: Any) -> dict[str, tuple[Any, ...]]:
        if not isinstance(written, dict):
            self.refuse("expected keys of the space and their values: {optimizer.name: sgd}", "when")
            return {}
        return {key: tuple(v) if isinstance(v, list) else (v,) for key, v in written.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _condition_mistakes(document: Document, found: Mapping[str, Dimension]) -> list[Mistake]:
    """Find conditions on what is not in the space, or never has that value."""
    mistakes: list[Mistake] = []
    for dimension in found.values():
        for parent, values in dimension.when.items():
            mark = document.marks[("space", dimension.key, "when")]
            above = found.get(parent)
            if above is None:
                near = get_close_matches(parent, found, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(found)}"
                text = f"{parent} is not in the space; {hint}"
            elif above.kind != "choices":
                text = f"{parent} is no list of choices"
            elif missing := [value for value in values if value not in above.choices]:
                text = f"{parent} is never {write_value(missing[0])}; it has {', '.join(above.labels)}"
            elif _leads_to(dimension.key, parent, found):
                text = f"{parent} depends on {dimension.key} itself"
            else:
                continue
            mistakes.append(((mark.line, 0), f"{mark.place} {dimension.key}.when: {text}"))
    return mistakes


def _leads_to(key: str, start: str, found: Mapping[str, Dimension]) -> bool:
    """Tell whether a key is the start itself, or something that the start depends on."""
    open_keys, seen = [start], set()
    while open_keys:
        here = open_keys.pop()
        if here == key:
            return True
        if here not in seen and here in found:
            seen.add(here)
            open_keys += found[here].when
    return False


def _parents_first(found: Mapping[str, Dimension]) -> tuple[Dimension, ...]:
    ordered: list[Dimension] = []
    left = list(found.values())
    while left:
        done = {dimension.key for dimension in ordered}
        free = [d for d in left if all(key in done or key not in found for key in d.when)]
        if not free:  # a circle, which is reported
            return tuple(found.values())
        ordered += free
        left = [dimension for dimension in left if dimension not in free]
    return tuple(ordered)
