"""A sweep as a job: an array of equal tasks, each of which trains trials of one study until none is left."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.choices import DeviceName
from finetune.commands.job.request import Request
from finetune.commands.job.trainings import Training, as_argument
from finetune.config.load_sweep import load_sweep
from finetune.errors import ConfigError
from finetune.text import expanded


@dataclass(frozen=True)
class SweepWorker(Training):
    """One of the tasks; `config` is the sweep file, `run_dir` the folder of the sweep."""

    def command(self) -> list[str]:
        """Return what is run; it begins the sweep, joins it, or resumes it."""
        return [
            *("finetune", "sweep", as_argument(self.config)),
            *("--sweep-dir", as_argument(self.run_dir), "--resume"),
        ]


def plan_sweep(
    arguments: Sequence[str], request: Request, *, seeds: Sequence[int], sweep_dir: Path | None
) -> list[SweepWorker]:
    """Check a sweep file, and return its workers.

    Args:
        arguments: the sweep file, and nothing else.
        request: what each worker asks for, and how many there are.
        seeds: none: a sweep file has its own.
        sweep_dir: the folder of the sweep; None for one in `output.dir` of the base.

    Raises:
        ConfigError: mistakes in the file, or what several workers cannot do.
    """
    path, *more = (Path(argument) for argument in arguments)
    if more or seeds:
        option = "--seeds" if seeds else str(more[0])
        raise ConfigError(
            f"{option}: the job of a sweep takes the sweep file alone.\n"
            f"Write values for all trials below set: in {path}, and how many seeds each has below seeds:."
        )
    if request.ranks > 1:
        raise ConfigError(
            f"{path}: each worker of a sweep trains one trial at a time, in one process.\n"
            "Leave out --nodes and --gpus, and set how many train at a time with --workers."
        )
    plan, workers = load_sweep(path), request.workers or 1
    if workers > 1 and plan.file.study != "journal":
        raise ConfigError(
            f"{path}: {workers} workers on several nodes share the study, and SQLite's locks do not hold on "
            "network file systems.\nAdd study: journal to the file."
        )
    _check_device(path, plan.base.device, request)
    folder = sweep_dir or expanded(plan.base.output.dir) / path.stem
    return [SweepWorker(path.stem, path, plan.base, (), folder)] * workers


def _check_device(path: Path, device: DeviceName, request: Request) -> None:
    """Refuse a device that the job does not request, or that a trial might silently do without.

    Raises:
        ConfigError: how to fix it.
    """
    if request.gpus and device != "cuda":
        raise ConfigError(
            f"{path}: device is {device}, and the job requests GPUs.\n"
            "Add set: {device: cuda} to the file, so that no trial trains on a CPU unseen; or add --gpus 0."
        )
    if not request.gpus and device in ("cuda", "mps"):
        raise ConfigError(
            f"{path}: device is {device}, and the job requests no GPU.\n"
            "Leave out --gpus 0, or set device to auto or cpu."
        )
