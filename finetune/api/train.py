"""`finetune.train`: train from Python, and leave the same run directory as the command."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from finetune.api.run import Run
from finetune.api.settings import ConfigSource, read_overrides, read_settings
from finetune.api.terms import python_terms
from finetune.commands.settings import is_run
from finetune.commands.train.resume import config_as_given
from finetune.commands.train.train import train as train_command
from finetune.display import Display
from finetune.errors import ConfigError
from finetune.runs import open_run


def train(
    config: ConfigSource,
    *,
    overrides: Mapping[str, object] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    force: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    **keys: object,
) -> Run:
    """Train a classifier, and return its run.

    Args:
        config: a YAML file; a folder or table of images, trained with the defaults that `finetune init`
            writes; a dictionary; a `Config`; or, with `resume`, a run.
        overrides: values by dotted key, in place of those of the config: `{"stages.frozen.epochs": 3}`.
        run_dir: the run directory; by default a new one below the config's `output.dir`.
        resume: continue the run in `run_dir` (or the newest one of this name), if there is one.
        force: with `resume`, continue although the config or the data have changed.
        overwrite: move aside what `run_dir` holds.
        quiet: print warnings alone.
        **keys: values by key with two underscores for each dot: `stages__frozen__epochs=3`, `seed=1`.

    Raises:
        ConfigError: a config or arguments that do not describe an experiment.
        FinetuneError: whatever else the command `finetune train` reports.
        KeyboardInterrupt: Ctrl-C; what was trained is saved and can be resumed.
    """
    with python_terms():
        _check_options(resume=resume, force=force, overwrite=overwrite)
        directory = None if run_dir is None else Path(run_dir)
        changes = read_overrides(overrides, keys, options=_OPTIONS)
        begun = _run_in(config)
        if begun is None:
            settings, name = read_settings(config, changes)
        elif not resume or directory is not None:
            raise ConfigError(f"{begun} is a run; continue it with resume=True and without run_dir.")
        else:
            settings, name, directory = config_as_given(open_run(begun), changes), begun.stem, begun
        outcome = train_command(
            settings,
            name=name,
            run_dir=directory,
            overwrite=overwrite,
            resume=resume,
            force=force,
            display=Display(sys.stdout, quiet=quiet),
        )
    return Run(outcome.run_dir)


_OPTIONS = tuple(train.__kwdefaults__ or ())


def _check_options(*, resume: bool, force: bool, overwrite: bool) -> None:
    if force and not resume:
        raise ConfigError("force=True is for resume=True: it continues a run whose config or data changed.")
    if overwrite and resume:
        raise ConfigError("resume=True continues a run, overwrite=True moves it aside; leave out one.")


def _run_in(source: ConfigSource) -> Path | None:
    """Return the run directory that is to be continued, if it is one."""
    if not isinstance(source, str | os.PathLike):
        return None
    return Path(source) if is_run(Path(source)) else None
