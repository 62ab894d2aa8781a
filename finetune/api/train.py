"""`finetune.train`: train from Python, and leave the same run directory as the command."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from finetune.api.run import Run
from finetune.api.settings import ConfigSource, read_overrides, read_training
from finetune.api.terms import python_terms
from finetune.commands.settings import RunOptions
from finetune.commands.train.train import train as train_command
from finetune.display import Display


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
        RunError: with `resume`, a folder that is neither a run nor a folder of images; a run in use.
        FinetuneError: whatever else the command `finetune train` reports.
        KeyboardInterrupt: Ctrl-C; what was trained is saved and can be resumed.
    """
    with python_terms():
        directory = None if run_dir is None else Path(run_dir)
        options = RunOptions(directory, resume=resume, force=force, overwrite=overwrite)
        changes = read_overrides(overrides, keys, options=_OPTIONS)
        settings, name, options = read_training(config, changes, options)
        outcome = train_command(settings, options, name=name, display=Display(sys.stdout, quiet=quiet))
    return Run(outcome.run_dir)


_OPTIONS = tuple(train.__kwdefaults__ or ())
