"""What a sweep has found so far: its trials, the best of them, and which keys matter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from finetune.choices import TrialStatus
from finetune.commands.sweep.folder import SweepFolder
from finetune.commands.sweep.study import SweepStudy, TrialRecord
from finetune.config.search_space import Dimension, Sample, samples_to_values
from finetune.config.sweep_plan import SweepPlan
from finetune.config.yaml_writer import dump_config, write_value
from finetune.display import Display, duration
from finetune.errors import ConfigError
from finetune.text import counted, shortened


@dataclass(frozen=True)
class TrialResult:
    """A trial, as it is shown."""

    number: int
    status: TrialStatus
    params: Mapping[str, Any]
    """values of the config, by key"""
    samples: Mapping[str, Sample]
    """what was drawn for them, numbers and labels"""
    value: float | None
    loss: float | None
    """on the validation images, beside the value; the mean over seeds"""
    standard_error: float | None
    """of the mean over seeds; None with one seed"""
    seconds: float | None
    runs: Sequence[str]
    reason: str
    """why it failed or was ended"""

    @property
    def run_dir(self) -> str:
        """The run directory of its first training."""
        return self.runs[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the trial as `sweep --json` documents it."""
        names = ("number", "status", "params", "value", "run_dir", "standard_error", "seconds", "reason")
        return {name: getattr(self, name) for name in names} | {"runs": list(self.runs)}


@dataclass(frozen=True)
class SweepResult:
    """All trials of a sweep so far."""

    directory: Path
    monitor: str
    maximises: bool
    trials: Sequence[TrialResult]
    importance: Mapping[str, float]
    """share of the differences that a key explains, 0–1; empty where too few trials are done"""
    space: Sequence[Dimension]

    @property
    def best(self) -> TrialResult | None:
        """The finished trial of the best value; of equal ones that of the lowest loss, then the first."""
        done = [trial for trial in self.trials if trial.status == "done"]
        return min(done, key=self.rank, default=None)

    def rank(self, trial: TrialResult) -> tuple[float, float, int]:
        """Return what trials are sorted by, the best first: on few images many are right as often."""
        sign = -1 if self.maximises else 1
        return sign * (trial.value or 0.0), trial.loss or 0.0, trial.number

    def count(self, status: TrialStatus) -> int:
        """Count the trials of a status."""
        return sum(trial.status == status for trial in self.trials)

    @property
    def summary(self) -> str:
        """How many trials there are of each status."""
        counts = [f"{count} {status}" for status in get_args(TrialStatus) if (count := self.count(status))]
        return f"{counted(len(self.trials), 'trial')}: {', '.join(counts)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the result as `sweep --json` documents it."""
        return {
            "sweep_dir": str(self.directory),
            "monitor": self.monitor,
            "trials": [trial.to_dict() for trial in self.trials],
            "best": None if self.best is None else self.best.number,
            "importance": dict(self.importance),
        }

    def written(self, value: float | None) -> str:
        """Write a value as people read it: scores in percent."""
        if value is None:
            return "–"
        return f"{value:.2%}" if self.is_share else f"{value:.4f}"

    @property
    def is_share(self) -> bool:
        """Whether values are written in percent."""
        return self.monitor in ("val_accuracy", "val_balanced_accuracy")


def read_result(study: SweepStudy) -> SweepResult:
    """Read what a sweep has found so far."""
    plan, folder = study.plan, study.folder
    trials = [result_of(record, plan, folder) for record in study.records()]
    monitor = "val_accuracy" if plan.monitor == "auto" else plan.monitor
    return SweepResult(folder.directory, monitor, plan.maximises, trials, study.importance(), plan.space)


def result_of(record: TrialRecord, plan: SweepPlan, folder: SweepFolder) -> TrialResult:
    """Return a trial as it is shown."""
    facts = record.facts
    seeds = plan.file.seeds
    runs = [str(folder.run_directory(record.number, plan.base.seed + n, seeds)) for n in range(seeds)]
    return TrialResult(
        record.number,
        record.status,
        samples_to_values(plan.space, record.samples),
        record.samples,
        record.value,
        facts.get("loss"),
        facts.get("standard_error"),
        facts.get("seconds"),
        runs,
        str(facts.get("error") or facts.get("why") or ""),
    )


def trial_line(trial: TrialResult, result: SweepResult) -> str:
    """Say in a line how a trial has ended."""
    params = ", ".join(f"{key} {write_value(value)}" for key, value in trial.params.items())
    seconds = "" if trial.seconds is None else duration(trial.seconds)
    reason = f"  {trial.reason.splitlines()[0]}" if trial.reason else ""
    value = shown_value(trial, result)
    return f"{trial.number:>5}  {trial.status:<6}  {value:>8}  {seconds:>6}  {params}{reason}"


def shown_value(trial: TrialResult, result: SweepResult) -> str:
    """Write the value of a trial, with its standard error where there are several seeds."""
    shown = result.written(trial.value)
    if trial.standard_error is None:
        return shown
    error = result.written(trial.standard_error).removesuffix("%")
    return f"{shown} ±{error}"


def show_result(result: SweepResult, display: Display) -> None:
    """Show all trials, the best one, and which keys matter."""
    if not result.trials:
        display.say(f"{result.directory}: no trial has begun")
        return
    keys = list(dict.fromkeys(key for trial in result.trials for key in trial.params))
    names = short_names(keys)
    rows = [
        (
            str(trial.number),
            trial.status,
            shown_value(trial, result),
            "–" if trial.seconds is None else duration(trial.seconds),
            *(write_value(trial.params[key]) if key in trial.params else "–" for key in keys),
            shortened(trial.reason.partition("\n")[0], 80),
        )
        for trial in result.trials
    ]
    columns = ("trial", "status", result.monitor, "took", *(names[key] for key in keys), "why")
    used = len(columns) if any(trial.reason for trial in result.trials) else len(columns) - 1
    display.table(columns[:used], [row[:used] for row in rows], least_important=("why", "took"))
    show_summary(result, display)


def show_summary(result: SweepResult, display: Display) -> None:
    """Say how many trials there are, which is the best, and which keys matter."""
    display.say(result.summary)
    best = result.best
    if best is not None:
        params = ", ".join(f"{key} {write_value(value)}" for key, value in best.params.items())
        display.say(f"best    trial {best.number}, {result.monitor} {shown_value(best, result)}: {params}")
        display.say(f"        {best.run_dir}")
    if result.importance:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in result.importance.items())
        display.say(f"matters {shares} of the differences between trials")


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last parts of keys, as many as tell them apart."""
    for count in range(1, max((key.count(".") for key in keys), default=0) + 2):
        names = {key: ".".join(key.split(".")[-count:]) for key in keys}
        if len(set(names.values())) == len(keys):
            return names
    return {key: key for key in keys}


def best_config(result: SweepResult, plan: SweepPlan) -> str:
    """Return the config of the best trial, which trains by itself, with a comment on where it comes from.

    Raises:
        ConfigError: no trial is done.
    """
    best = required_best(result)
    params = [f"#   {key}: {write_value(value)}" for key, value in best.params.items()]
    trials = counted(len(result.trials), "trial")
    lines = [
        f"# Trial {best.number} of the sweep {result.directory}, the best of {trials}:",
        f"# {result.monitor} {shown_value(best, result)} on the validation images, which chose it, so that",
        "# other images will give less. What the sweep has set:",
        *params,
        "",
    ]
    return "\n".join(lines) + dump_config(plan.config(best.params))


def required_best(result: SweepResult) -> TrialResult:
    """Return the best trial.

    Raises:
        ConfigError: no trial is done.
    """
    if result.best is None:
        raise ConfigError(
            f"{result.directory}: no trial is done, so none is the best.\n"
            f"Go on with: finetune sweep {result.directory} --resume"
        )
    return result.best
