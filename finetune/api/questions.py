"""From Python: what can be asked of images before a training, and the training that asks it all itself."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.analysis.label_flags import require_cleanlab
from finetune.api.run import Run
from finetune.api.settings import ConfigSource, read_overrides, read_settings
from finetune.api.terms import python_terms
from finetune.commands import curve as curve_command
from finetune.commands.auto.train import AutoOptions
from finetune.commands.auto.train import auto as auto_command
from finetune.commands.check import check as check_command
from finetune.commands.check.report import Report
from finetune.commands.curve import Answer as Curve
from finetune.commands.labels.find import Answer as Labels
from finetune.commands.labels.find import find_doubtful
from finetune.commands.rank.rank import rank as rank_command
from finetune.commands.rank.ranking import Ranking
from finetune.config.config import Config
from finetune.display import Display


def check(
    config: ConfigSource,
    *,
    overrides: Mapping[str, object] | None = None,
    quiet: bool = False,
    **keys: object,
) -> Report:
    """Look at the images and the plan; train nothing.

    Args:
        config: what `finetune.train` takes.
        overrides: values by dotted key, as for `finetune.train`.
        quiet: print warnings alone.
        **keys: values by key with two underscores for each dot.

    Returns:
        what was found; `to_dict(strict=False)` has all that `finetune check --json` prints.

    Raises:
        FinetuneError: whatever keeps the command `finetune check` from looking.
    """
    with python_terms():
        return check_command.check(
            _settings(config, overrides, keys, check), Display(sys.stdout, quiet=quiet)
        )


def rank(
    config: ConfigSource,
    archs: Sequence[str] = (),
    *,
    download: bool = False,
    on_val: bool = False,
    overrides: Mapping[str, object] | None = None,
    quiet: bool = False,
    **keys: object,
) -> Ranking:
    """Rank pretrained backbones on some images; train nothing.

    Args:
        config: what `finetune.train` takes.
        archs: architectures and patterns (`timm:*lite*`); none for those whose weights are on this machine.
        download: fetch weights that are not.
        on_val: judge on the validation images instead of on all.
        overrides: values by dotted key, as for `finetune.train`.
        quiet: print warnings alone.
        **keys: values by key with two underscores for each dot.

    Returns:
        the ranking: `best`, `scores` from the best down; `to_list()` as `finetune rank --json` prints it.

    Raises:
        FinetuneError: whatever the command `finetune rank` reports.
    """
    with python_terms():
        settings = _settings(config, overrides, keys, rank)
        display = Display(sys.stdout, quiet=quiet)
        return rank_command(settings, archs, download=download, on_val=on_val, display=display)


def labels(
    config: ConfigSource,
    *,
    overrides: Mapping[str, object] | None = None,
    quiet: bool = False,
    **keys: object,
) -> Labels:
    """Find labels that are doubtful.

    Args:
        config: what `finetune.train` takes.
        overrides: values by dotted key, as for `finetune.train`.
        quiet: print warnings alone.
        **keys: values by key with two underscores for each dot.

    Returns:
        each image with its doubt, the most doubtful first: `to_dict()` as `finetune labels --json` prints it.

    Raises:
        FinetuneError: whatever the command `finetune labels` reports; cleanlab is not installed.
    """
    with python_terms():
        require_cleanlab()
        return find_doubtful(_settings(config, overrides, keys, labels), Display(sys.stdout, quiet=quiet))


def curve(
    config: ConfigSource,
    *,
    overrides: Mapping[str, object] | None = None,
    quiet: bool = False,
    **keys: object,
) -> Curve:
    """Tell what twice and four times the images would bring.

    Args:
        config: what `finetune.train` takes.
        overrides: values by dotted key, as for `finetune.train`.
        quiet: print warnings alone.
        **keys: values by key with two underscores for each dot.

    Returns:
        the curve and its forecast: `to_dict()` as `finetune curve --json` prints it.

    Raises:
        FinetuneError: whatever the command `finetune curve` reports.
    """
    with python_terms():
        return curve_command.curve(
            _settings(config, overrides, keys, curve), Display(sys.stdout, quiet=quiet)
        )


def auto(
    data: str | os.PathLike[str],
    *,
    minutes: float = 10.0,
    config: str | os.PathLike[str] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    overrides: Mapping[str, object] | None = None,
    quiet: bool = False,
    **keys: object,
) -> Run:
    """Choose everything for a folder or table of images, write the config that says so, and train.

    Args:
        data: a folder, archive or table of images.
        minutes: how long choosing and training may take.
        config: the config to write; by default `NAME-auto.yaml` in the current folder.
        run_dir: the run directory; by default a new one below `runs`.
        download: consider weights that have to be fetched.
        overrides: how the data are to be read, by dotted key: `{"data.columns.label": "breed"}`.
        quiet: print warnings alone.
        **keys: the same by key with two underscores for each dot.

    Raises:
        ConfigError: the config exists already; an override of something that is chosen here.
        FinetuneError: whatever else the command `finetune auto` reports.
    """
    with python_terms():
        chosen = read_overrides(overrides, keys, options=tuple(auto.__kwdefaults__ or ()))
        options = AutoOptions(
            None if config is None else Path(config),
            None if run_dir is None else Path(run_dir),
            minutes,
            download=download,
        )
        outcome = auto_command(Path(data), options, Display(sys.stdout, quiet=quiet), chosen)
    return Run(outcome.outcome.run_dir)


def _settings(
    config: ConfigSource,
    overrides: Mapping[str, object] | None,
    keys: Mapping[str, object],
    function: object,
) -> Config:
    """Read the config that a function of these was given; a misspelt argument is told from a key."""
    options = tuple(getattr(function, "__kwdefaults__", None) or ())
    return read_settings(config, read_overrides(overrides, keys, options=options))[0]
