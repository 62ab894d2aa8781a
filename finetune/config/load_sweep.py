"""Load a sweep file, and check it and its space with the parser of configs, before the first trial."""

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from finetune.config.overrides import key_parts
from finetune.config.problems import MAX_LINES, Mistake, describe, in_order
from finetune.config.python_values import Override
from finetune.config.read_space import read_space
from finetune.config.search_space import Dimension, Sample, samples_to_values, settings
from finetune.config.sweep_file import NAMED, SweepFile
from finetune.config.sweep_plan import SweepPlan, SweepTexts
from finetune.config.yaml_reader import Document, decode, load_bytes, read_yaml
from finetune.config.yaml_writer import write_value
from finetune.errors import ConfigError, InvalidConfigError
from finetune.metrics.monitor import SCORES

# What decides which images are judged, and by what: values of trials could not be compared.
_JUDGES = (
    *("data.path", "data.val", "data.split_seed", "data.columns", "data.layout", "data.label_pattern"),
    *("data.label_separator", "data.image_folder", "data.corrections", "data.exclude", "monitor"),
)
_MOST_CORNERS = 512
_RANDOM = 200  # combinations that are checked where there are more corners than that


def load_sweep(path: Path) -> SweepPlan:
    """Read a sweep file and its base, and check all of it.

    Raises:
        ConfigError: a file that cannot be read, or what does not describe a sweep, a line per mistake.
    """
    text = decode(load_bytes(path), str(path))
    file, _ = _read_file(text, str(path))
    base = path.parent / Path(file.base).expanduser()
    base_text = decode(load_bytes(base), str(base))
    return parse_sweep(SweepTexts(text, str(path), base_text, str(base)))


def is_sweep(path: Path) -> bool:
    """Tell whether a file describes a sweep, and not a config.

    Raises:
        ConfigError: it cannot be read.
    """
    value = read_yaml(decode(load_bytes(path), str(path)), str(path)).value
    return isinstance(value, dict) and "space" in value


def parse_sweep(texts: SweepTexts) -> SweepPlan:
    """Check a sweep file with its base: every choice, both ends of each range, and how they go together.

    Raises:
        ConfigError: as `load_sweep`.
    """
    file, document = _read_file(texts.sweep, texts.source)
    space, mistakes = read_space(document)
    mistakes += _key_mistakes(document, file)
    if mistakes:
        raise InvalidConfigError(in_order(mistakes))
    monitor = () if file.monitor is None else (_override(document, ("monitor",), "monitor", file.monitor),)
    fixed = tuple(_override(document, ("set", key), key, value) for key, value in file.set.items())
    plan = SweepPlan(file, space, texts, (*fixed, *monitor))
    _ = plan.base  # its own mistakes come before those of the space
    mistakes = [*_grid_mistakes(document, plan), *_pruner_mistakes(document, plan)]
    if mistakes:
        raise InvalidConfigError(in_order(mistakes))
    _check_configs(plan)
    return plan


def _read_file(text: str, source: str) -> tuple[SweepFile, Document]:
    document = read_yaml(text, source)
    if not isinstance(document.value, dict):
        raise ConfigError(
            f"{document.marks[()].place}: a sweep is a mapping, at the least "
            "`base: config.yaml`, `trials: 20` and `space: {optimizer.weight_decay: {log: [1e-4, 0.1]}}`"
        )
    if "space" not in document.value and "data" in document.value:
        raise ConfigError(
            f"{source}: this is a config, not a sweep of one.\n"
            f"Write a file with base: {Path(source).name}, trials: 20 and space: {{KEY: VALUES}}."
        )
    for section in NAMED:
        value = document.value.get(section)
        if isinstance(value, str):
            document.value[section] = {"name": value}
            document.marks[(section, "name")] = document.marks[(section,)]
    try:
        return SweepFile.model_validate(document.value), document
    except ValidationError as error:
        raise InvalidConfigError(in_order(describe(error, SweepFile, document))) from None


def _override(document: Document, path: tuple[str, ...], key: str, value: object) -> Override:
    return Override(tuple(key_parts(key)), value, document.marks[path].place)


def _key_mistakes(document: Document, file: SweepFile) -> list[Mistake]:
    """Find keys that no sweep may vary, and those that stand in two places."""
    mistakes: list[Mistake] = []
    for key in file.space:
        mark, path = document.marks[("space", key)], ".".join(key_parts(key))
        others = [other for other in (*file.set, *file.space) if other != key or other in file.set]
        if path == "seed":
            text = "the best seed is luck; write seeds: 3 to train each setting with several"
        elif any(path == judge or path.startswith(f"{judge}.") for judge in _JUDGES):
            text = "trials that are judged on other images, or by another score, cannot be compared"
        elif clash := [other for other in others if _overlap(path, ".".join(key_parts(other)))]:
            text = f"{clash[0]} sets it as well; leave one of them out"
        else:
            continue
        mistakes.append(((mark.line, 0), f"{mark.place} {key}: {text}"))
    if file.seeds > 1 and "seed" in file.set and isinstance(file.set["seed"], list):
        mark = document.marks[("set", "seed")]
        mistakes.append(((mark.line, 0), f"{mark.place} seed: the first of the seeds, a whole number"))
    return mistakes


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _grid_mistakes(document: Document, plan: SweepPlan) -> list[Mistake]:
    if plan.file.sampler.name != "grid":
        return []
    return [
        (
            (document.marks[("space", dimension.key)].line, 0),
            f"{dimension.place} {dimension.key}: a grid needs values that can be counted; add points: 5, or "
            "list choices",
        )
        for dimension in plan.space
        if not dimension.is_finite
    ]


def _pruner_mistakes(document: Document, plan: SweepPlan) -> list[Mistake]:
    """Find a pruner that would compare what cannot be compared."""
    pruner = plan.file.pruner
    if pruner.name == "none":
        return []
    mark = document.marks[("pruner",)]
    keys = [d.key for d in plan.space if d.key == "stages" or key_parts(d.key)[-1] == "epochs"]
    if keys:
        text = f"{keys[0]} is in the space, and epochs of schedules of other length are not alike; write none"
    elif plan.monitor not in ("auto", *SCORES) and pruner.margin is None:
        text = f"of {plan.monitor} no error is known; write margin: in nats, or monitor a score"
    else:
        return []
    return [((mark.line, 0), f"{mark.place} pruner: {text}")]


def _check_configs(plan: SweepPlan) -> None:
    """Read the config of every corner of the space, or of each value and many combinations.

    Raises:
        ConfigError: one of them is none; where it is the combination, it says which.
    """
    failures = [(samples, lines) for samples in _combinations(plan.space) if (lines := _lines(plan, samples))]
    if not failures:
        return
    together = {line for _, lines in failures for line in lines}
    alone = [line for samples in _single_values(plan.space) for line in _lines(plan, samples)]
    if wrong := [line for line in dict.fromkeys(alone) if line in together]:
        raise InvalidConfigError("\n".join(wrong[:MAX_LINES]))
    samples, lines = failures[0]
    values = samples_to_values(plan.space, samples)
    shown = ", ".join(f"{key}: {write_value(value)}" for key, value in values.items())
    raise ConfigError(
        f"{lines[0]}\nThat is with {shown}; a key that others forbid takes a condition: when: {{KEY: VALUE}}."
    )


def _lines(plan: SweepPlan, samples: Mapping[str, Sample]) -> list[str]:
    try:
        plan.config(samples_to_values(plan.space, samples))
    except ConfigError as error:
        return str(error).splitlines()
    return []


def _single_values(space: Sequence[Dimension]) -> Iterable[dict[str, Sample]]:
    """Return each corner of each key, with nothing else but what it depends on."""
    for dimension in space:
        for corner in dimension.corners():
            yield {**_conditions_of(dimension, space), dimension.key: corner}


def _conditions_of(dimension: Dimension, space: Sequence[Dimension]) -> dict[str, Sample]:
    """Return values of other keys with which a key is there."""
    by_key = {other.key: other for other in space}
    found: dict[str, Sample] = {}
    for key, allowed in dimension.when.items():
        found[key] = write_value(allowed[0])
        found |= _conditions_of(by_key[key], space)
    return found


def _combinations(space: Sequence[Dimension]) -> Iterable[dict[str, Sample]]:
    """Return all corners; where they are too many, each value with the first of others, and some."""
    corners = list(islice(settings(space, grid=False), _MOST_CORNERS + 1))
    if len(corners) <= _MOST_CORNERS:
        return corners
    firsts = {dimension.key: dimension.corners()[0] for dimension in space}
    draw = random.Random(0)
    some = [{d.key: draw.choice(d.corners()) for d in space} for _ in range(_RANDOM)]
    return [*(firsts | samples for samples in _single_values(space)), *some]
