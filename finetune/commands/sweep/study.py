"""The study of a sweep: its trials in a file of Optuna's, which several processes share."""

import importlib.util
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any

from filelock import BaseFileLock

from finetune.choices import StudyStorage, TrialStatus
from finetune.commands.sweep.folder import JOURNAL, STUDY, SweepFolder
from finetune.config.search_space import Dimension, Sample, samples_to_values
from finetune.config.sweep_plan import SweepPlan
from finetune.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, TrialState

_STUDY_NAME = "sweep"
_PATIENCE = 60.0  # seconds that a process waits for another one to write
INSTALL = "pip install 'finetune-vision[sweep]'"


def require_optuna() -> None:
    """Make sure that Optuna is there.

    Raises:
        ConfigError: it is not installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(f"sweep needs optuna.\nInstall it: {INSTALL}")


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the study holds it."""

    number: int
    status: TrialStatus
    samples: Mapping[str, Sample]
    value: float | None
    """of a trial that was pruned its best so far; None of one that failed or has no epoch yet"""
    facts: Mapping[str, Any]
    """what was written down of it: runs, seed_values, seconds, error, decision"""
    epochs: Mapping[int, float]
    """what is monitored after each epoch of its first training, over all stages"""


@dataclass(frozen=True)
class Claim:
    """A trial that this process holds."""

    number: int
    samples: Mapping[str, Sample]
    values: Mapping[str, Any]
    lock: BaseFileLock
    resumed: bool


class SweepStudy:
    """The study of one sweep. Optuna's own numbers and states stay in here."""

    def __init__(self, folder: SweepFolder, plan: SweepPlan) -> None:
        """Open the study, or create it."""
        self.folder, self.plan = folder, plan
        with _reported(folder), folder.locked():
            self._study = _open(folder, storage=plan.file.study, maximises=plan.maximises)

    def records(self) -> list[TrialRecord]:
        """Read all trials."""
        with _reported(self.folder):
            trials = self._study.get_trials(deepcopy=False)
        return [self._record(trial) for trial in trials if trial.state.name != "WAITING"]

    def _record(self, trial: "FrozenTrial") -> TrialRecord:
        facts = {name: json.loads(text) for name, text in trial.user_attrs.items()}
        epochs = dict(trial.intermediate_values)
        best = _best(list(epochs.values()), maximises=self.plan.maximises)
        status = _STATUSES[trial.state.name]
        value = trial.value if status == "done" else best if status != "failed" else None
        return TrialRecord(trial.number, status, dict(trial.params), value, facts, epochs)

    def claim(self, most: int | None) -> Claim | None:
        """Take a trial that was interrupted, or a new one; None where there is none left.

        Args:
            most: how many trials the sweep has in the end; None for as many as there is time for.
        """
        with _reported(self.folder), self.folder.locked():
            trials = self._study.get_trials(deepcopy=False)
            for trial in trials:
                if trial.state.name == "RUNNING":
                    lock = self.folder.hold_trial(trial.number)
                    if lock is not None:
                        return self._take(trial.number, lock, resumed=True)
            begun = sum(trial.state.name != "WAITING" for trial in trials)
            if (most is not None and begun >= most) or not self._enqueue(begun, trials):
                return None
            self._study.sampler = self._sampler(begun)
            number = self._study.ask().number
            lock = self.folder.hold_trial(number)
            assert lock is not None  # nobody else knows of it
            return self._take(number, lock, resumed=False)

    def _enqueue(self, begun: int, trials: Sequence["FrozenTrial"]) -> bool:
        """Put what is not drawn before the next trial: the base itself, or the next of a grid."""
        waiting = len(trials) > begun
        if self.plan.file.sampler.name == "grid":
            grid = self.plan.grid()
            if begun < len(grid) and not waiting:
                self._study.enqueue_trial(dict(grid[begun]))
            return begun < len(grid)
        samples = self.plan.base_samples() if begun == 0 and not waiting else None
        if samples is not None:
            self._study.enqueue_trial(dict(samples))
        return True

    def _sampler(self, number: int) -> "BaseSampler":
        """Return what draws the values of a trial: by its number, so that none is drawn a second time."""
        from optuna.samplers import RandomSampler, TPESampler

        sampler = self.plan.file.sampler
        seed = sampler.seed * 1_000_003 + number
        if sampler.name != "tpe":
            return RandomSampler(seed=seed % 2**32)
        with warnings.catch_warnings():  # of arguments that older releases call experimental
            warnings.simplefilter("ignore")
            return TPESampler(seed=seed % 2**32, n_startup_trials=sampler.startup, constant_liar=True)

    def _take(self, number: int, lock: BaseFileLock, *, resumed: bool) -> Claim:
        if resumed:
            self._study.sampler = self._sampler(number)
        trial = self._trial(number)
        samples: dict[str, Sample] = {}
        for dimension in self.plan.space:
            if dimension.is_active(samples_to_values(self.plan.space, samples)):
                samples[dimension.key] = _suggest(trial, dimension)
        values = samples_to_values(self.plan.space, samples)
        return Claim(number, samples, values, lock, resumed)

    def _trial(self, number: int) -> "Trial":
        from optuna import Trial

        return Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)

    def report(self, number: int, epochs: Mapping[int, float]) -> None:
        """Write down what is monitored after epochs of a trial; what is known already stays."""
        with _reported(self.folder):
            trial = self._trial(number)
            known = self._study.get_trials(deepcopy=False)[number].intermediate_values
            for epoch, value in epochs.items():
                if epoch not in known:
                    trial.report(value, epoch)

    def note(self, number: int, **facts: object) -> None:
        """Write down facts of a trial."""
        with _reported(self.folder):
            trial = self._trial(number)
            for name, value in facts.items():
                trial.set_user_attr(name, json.dumps(value))

    def end(self, number: int, status: TrialStatus, value: float | None = None) -> None:
        """Write down how a trial has ended."""
        state: TrialState = _states()[status]
        with _reported(self.folder):
            self._study.tell(number, value if status == "done" else None, state=state)

    def importance(self) -> dict[str, float]:
        """Return the share of the differences between trials that each key explains, 1 together.

        By fANOVA (Hutter et al., 2014), of keys that every finished trial has; of fewer than four trials, or
        where all have the same value, nothing is said.
        """
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        done = [record for record in self.records() if record.status == "done"]
        if len(done) < 4 or len({record.value for record in done}) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return get_param_importances(self._study, evaluator=FanovaImportanceEvaluator(seed=0))


_STATUSES: Mapping[str, TrialStatus] = {
    "COMPLETE": "done",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
}


def _states() -> Mapping[TrialStatus, "TrialState"]:
    from optuna.trial import TrialState

    return {status: TrialState[name] for name, status in _STATUSES.items()}


def _best(values: Sequence[float], *, maximises: bool) -> float | None:
    if not values:
        return None
    return max(values) if maximises else min(values)


def _suggest(trial: "Trial", dimension: Dimension) -> Sample:
    """Draw the value of a key; of one that was drawn before, return it."""
    key, low, high = dimension.key, dimension.low, dimension.high
    if dimension.kind == "choices":
        return str(trial.suggest_categorical(key, dimension.labels))
    if dimension.kind == "int":
        return trial.suggest_int(key, int(low), int(high))
    return trial.suggest_float(key, low, high, log=dimension.kind == "log")


def _open(folder: SweepFolder, *, storage: StudyStorage, maximises: bool) -> "Study":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=_journal(folder) if storage == "journal" else _sqlite(folder),
        study_name=_STUDY_NAME,
        direction="maximize" if maximises else "minimize",
        load_if_exists=True,
    )


def _sqlite(folder: SweepFolder) -> "BaseStorage":
    from optuna.storages import RDBStorage

    return RDBStorage(f"sqlite:///{folder / STUDY}", engine_kwargs={"connect_args": {"timeout": _PATIENCE}})


def _journal(folder: SweepFolder) -> "BaseStorage":
    """Return a log of all changes, for file systems on which SQLite's locks do not hold, such as NFS."""
    from finetune.commands.sweep.journal import open_journal

    return open_journal(folder / JOURNAL)


@contextmanager
def _reported(folder: SweepFolder) -> Iterator[None]:
    """Say in two lines that the file of the study is damaged or cannot be used."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError, JSONDecodeError) as error:
        file = JOURNAL if isinstance(error, JSONDecodeError) else STUDY
        below = error.__cause__ if isinstance(error, StorageInternalError) else error
        cause = getattr(below, "orig", None) or below
        raise CheckpointError(
            f"{folder / file} cannot be used as the file of a study: {cause}.\n"
            "Restore it from a copy, or name another --sweep-dir."
        ) from None
