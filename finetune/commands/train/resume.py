"""What has changed since a run began, and whether it can be resumed all the same."""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finetune.choices import IMAGE_ENDINGS
from finetune.config.config import Config
from finetune.config.load import parse_config
from finetune.config.python_values import Override
from finetune.config.yaml_writer import dump_config
from finetune.data.index import ImageIndex
from finetune.data.quality.fingerprint import Fingerprint
from finetune.errors import CheckpointError
from finetune.experiment.build import Experiment
from finetune.experiment.packages import taken_from_packages
from finetune.machine.device import describe, describe_arithmetic
from finetune.machine.divided import has_divided
from finetune.plugins import require_packages
from finetune.runs import STARTED, Run
from finetune.runs.digests import refuse_draft
from finetune.runs.records import read_beginning, read_classes, read_started
from finetune.text import counted, printable
from finetune.version import VERSION

# The result does not depend on these.
_FREE = ("data.workers", "data.cache", "output.", "checkpoint.", "device", "loggers", "shard")
_LISTED = 5
_FORMAT = 3  # of what a run holds for resuming it


# What is computed with; other versions may compute other bits.
_LIBRARIES = ("torch", "torchvision", "fastai", "numpy", "pillow")


def starting_facts(config: Config, experiment: Experiment, inexact: Sequence[str]) -> dict[str, object]:
    """Return what a run begins with: the config as it was given, and the environment.

    `inexact` is what had changed when the run was resumed, now and before.
    """
    return {
        "format": _FORMAT,
        "config": dump_config(config),
        "precision": experiment.config.precision,
        "weights": None if experiment.model.origin is None else experiment.model.origin.to_dict(),
        "layout": experiment.index.layout and experiment.index.layout.to_dict(),
        "corrections": experiment.index.corrections and experiment.index.corrections.to_dict(),
        "packages": [origin.to_dict() for origin in taken_from_packages(config)],
        "environment": describe_environment(experiment),
        "inexact": list(dict.fromkeys(inexact)),
    }


def earlier_changes(run: Run) -> list[str]:
    """Return what had changed at earlier resumes of a run."""
    return [str(change) for change in read_beginning(run)["inexact"]]


def describe_environment(experiment: Experiment) -> dict[str, str]:
    """Name everything outside the config and the data that the bits of a result depend on."""
    return {
        **describe_versions(),
        **({"timm": version("timm")} if experiment.config.model.arch.startswith("timm:") else {}),
        **_heif_reader(experiment),
        **{one.package: one.version for one in taken_from_packages(experiment.config)},
        "device": describe(experiment.device),
        "devices": devices_text(experiment),
        "arithmetic": describe_arithmetic(experiment.device),
    }


def devices_text(experiment: Experiment) -> str:
    """Say how many devices train, and whether they divide the weights: sums are then in another order."""
    divided = ", which divide the weights" if has_divided(experiment.model) else ""
    return f"{experiment.ranks.size}{divided}"


def _heif_reader(experiment: Experiment) -> dict[str, str]:
    """Name what reads HEIC, where there is any."""
    names = (sample.name.lower() for sample in experiment.index.samples)
    if not any(name.endswith(IMAGE_ENDINGS["HEIF"]) for name in names):
        return {}
    return {"pillow-heif": version("pillow-heif")}


def describe_versions() -> dict[str, str]:
    """Name the code that computes, whatever the config is: this package, Python, and the libraries."""
    return {
        "finetune": VERSION,
        "finetune's code": _digest_of_code(),
        "python": ".".join(map(str, sys.version_info[:3])),
        **{name: version(name) for name in _LIBRARIES},
    }


def _digest_of_code() -> str:
    package = Path(__file__).parents[2]
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def config_as_given(run: Run, overrides: Sequence[str | Override] = ()) -> Config:
    """Return the config that a run was started with, perhaps with other values.

    Raises:
        ConfigError: the overrides say nothing possible, or a package that it needs is not installed.
        CheckpointError: the run is of a version of finetune whose checkpoints, history and report have other
            fields.
    """
    refuse_draft(run.directory)
    if read_started(run).get("format") != _FORMAT:
        raise CheckpointError(
            f"{run.directory} was begun by another version of finetune, whose runs hold other things.\n"
            f"Resume it with that version, or start again without --resume; this is {VERSION}."
        )
    require_packages(read_beginning(run).get("packages", ()), str(run.directory))
    return parse_config(read_beginning(run)["config"], str(run / STARTED), overrides)


def check_config(before: Config, now: Config) -> list[str]:
    """Compare a config with the one that a run was started with; return what would change the result.

    More stages at the end change nothing that was trained: the run continues with them.
    """
    if before.stages == now.stages[: len(before.stages)]:
        now = now.model_copy(update={"stages": before.stages})
    return [
        f"{key}: {old}, now {new}"
        for key, old, new in different_keys(before, now)
        if not key.startswith(_FREE)
    ]


def different_keys(one: Config, other: Config) -> list[tuple[str, str, str]]:
    """Return every key in which two configs differ, with both values as they are shown."""
    ours, theirs = flat_values(one), flat_values(other)
    return [
        (key, _shown(ours, key), _shown(theirs, key))
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]


def flat_values(config: Config) -> dict[str, Any]:
    """Return every value of a config by its dotted key."""
    return dict(_flat(config.model_dump(mode="json")))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Return every single value of nested mappings and lists with its dotted path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        yield path, counted(len(value), "value") if value and isinstance(value[0], Mapping) else tuple(value)
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{path}.{number}")
    else:
        yield path, value


def _shown(values: Mapping[str, Any], key: str) -> str:
    return "null" if values.get(key) is None else printable(str(values[key]))


def check_classes(run: Run, index: ImageIndex) -> None:
    """Make sure that the classes are still those of the run, in their order.

    Raises:
        CheckpointError: they are not; outputs of the model would take other names.
    """
    before, now = tuple(read_classes(run)), index.class_names
    if before == now:
        return
    gone, new = [n for n in before if n not in now], [n for n in now if n not in before]
    raise CheckpointError(
        f"The classes of the data have changed: {_names(gone, '−')}{_names(new, '+')}.\n"
        f"{run.directory} cannot be resumed; restore them, or start again without --resume."
    )


def check_data(run: Run, index: ImageIndex, files: Mapping[str, Fingerprint]) -> list[str]:
    """Compare the images with those that a run was started with; return a line for each kind of change."""
    before = {name: (split, of_class, *cells) for name, split, of_class, cells in run.read_split()}
    now = {name: tuple(rest) for name, *rest in index.rows()}
    kept = before.keys() & now.keys()
    known = run.read_files() if files else {}
    moved = {name for name in kept if before[name] != now[name]}
    altered = {
        name
        for name in kept & known.keys() & files.keys()
        if (known[name].bytes, known[name].blake2b) != (files[name].bytes, files[name].blake2b)
    }
    kinds = {
        "added": now.keys() - before.keys(),
        "removed": before.keys() - now.keys(),
        "altered": altered,
        "of another class, split or metadata": moved,
    }
    return [f"images {kind}: {_names(sorted(names), '')}" for kind, names in kinds.items() if names]


def check_environment(run: Run, experiment: Experiment) -> list[str]:
    """Compare what computes with what computed when the run began; return what differs."""
    before, now = read_beginning(run)["environment"], describe_environment(experiment)
    changed = [
        f"{name} {before.get(name)}, now {value}" for name, value in now.items() if before.get(name) != value
    ]
    if experiment.device.type != "cpu" and not experiment.config.deterministic:
        changed.append("deterministic: false, so that a GPU may compute other bits each time")
    return changed


def refuse_or_note(
    run: Run, differences: Sequence[str], what: str, *, force: bool, how_to_fix: str
) -> list[str]:
    """Refuse to resume with anything that differs from how the run was started, unless forced.

    Raises:
        CheckpointError: there are differences, and `force` is not set.
    """
    if differences and not force:
        lines = "\n".join(f"  {line}" for line in differences)
        raise CheckpointError(
            f"{run.directory} was started with {what}:\n{lines}\n"
            f"{how_to_fix}, start again without --resume, or add --force to resume all the same."
        )
    return list(differences)


def _names(names: Sequence[str], sign: str) -> str:
    listed = ", ".join(sign + printable(name) for name in names[:_LISTED])
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return f"{len(names)}, {listed}{more}" if not sign else listed + more + (" " if names else "")
