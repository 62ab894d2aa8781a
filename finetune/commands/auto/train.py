"""The story of `finetune auto`: choose everything, write it down, and train as it says."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.commands.auto.auto import choose_config
from finetune.commands.auto.choices import Choices
from finetune.commands.init import config_name
from finetune.commands.settings import RunOptions, read_settings, require_data
from finetune.commands.train.finish import Outcome
from finetune.commands.train.train import train
from finetune.config.python_values import Override
from finetune.display import Display


@dataclass(frozen=True)
class AutoOptions:
    """What may be said to `finetune auto`."""

    config: Path | None = None
    """the config to write; None for one in the current folder, named after the data"""
    run_dir: Path | None = None
    """None for a new one below `runs`"""
    minutes: float = 10.0
    """for choosing and training together"""
    download: bool = False
    """whether weights that are not on this machine are considered"""


@dataclass(frozen=True)
class AutoOutcome:
    """What was chosen, where that is written, and what came of it."""

    config: Path
    choices: Choices
    outcome: Outcome

    def to_dict(self) -> dict[str, Any]:
        """Return it as `auto --json` documents it."""
        return {"config": str(self.config), **self.choices.to_dict(), **asdict(self.outcome)}


def auto(
    data: Path, options: AutoOptions, display: Display, overrides: Sequence[str | Override] = ()
) -> AutoOutcome:
    """Choose everything for a folder or table of images, write the config, and train.

    Raises:
        ConfigError: `data` is none; an override of something that is chosen here; the config exists.
        FinetuneError: whatever else is wrong with the data, or in a training.
    """
    require_data(data)
    target = options.config or Path(f"{Path(config_name(data)).stem}-auto.yaml")
    choices = choose_config(
        data,
        target,
        minutes=options.minutes,
        download=options.download,
        display=display,
        overrides=overrides,
    )
    settings, name = read_settings(target)
    return AutoOutcome(
        target, choices, train(settings, RunOptions(options.run_dir), name=name, display=display)
    )
