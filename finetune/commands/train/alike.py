"""What the processes of a training have to have in common, compared before anything is trained."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from finetune.commands.settings import RunOptions
from finetune.commands.train.resume import describe_versions, flat_values
from finetune.config.config import Config
from finetune.errors import ConfigError
from finetune.machine.ranks import Ranks
from finetune.text import printable

_FREE = ("output.", "loggers")


def options_after_restart(options: RunOptions, ranks: Ranks) -> RunOptions:
    """Return options that resume the run of this job, where torchrun has started it again."""
    begun = ranks.remembered()
    if begun is not None:
        return replace(options, run_dir=Path(begun), resume=True, overwrite=False)
    return replace(options, resume=True, overwrite=False) if ranks.restarts and options.run_dir else options


def check_alike(ranks: Ranks, config: Config) -> None:
    """Refuse processes with other configs, versions or code than rank 0 has.

    Raises:
        ConfigError: names the rank, and what is different.
    """
    if ranks.alone:
        return
    values = {key: value for key, value in flat_values(config).items() if not key.startswith(_FREE)}
    each = ranks.of_each({key: str(value) for key, value in (describe_versions() | values).items()})
    for rank, theirs in enumerate(each):
        if different := _differences(each[0], theirs):
            raise ConfigError(
                f"rank {rank} differs from rank 0: {'; '.join(different[:3])}"
                f"{f' and {len(different) - 3} more' if len(different) > 3 else ''}.\n"
                "Start all processes with the same config, and the same versions, on every machine."
            )


def _differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    keys = dict.fromkeys([*ours, *theirs])
    return [
        f"{key} {printable(theirs.get(key, 'missing'))}, not {printable(ours.get(key, 'missing'))}"
        for key in keys
        if ours.get(key) != theirs.get(key)
    ]
