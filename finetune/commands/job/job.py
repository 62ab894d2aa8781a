"""The story of `finetune job`: from configs to a file that a cluster's scheduler takes.

Neither torch nor the images are looked at: a job is often written on a machine that has neither.
"""

from collections.abc import Sequence
from os.path import isfile
from pathlib import Path

from finetune.choices import Scheduler
from finetune.commands.job.kubernetes import manifest
from finetune.commands.job.request import Request, read_seeds
from finetune.commands.job.slurm import quoted, slurm_script
from finetune.commands.job.sweep_workers import plan_sweep
from finetune.commands.job.trainings import Training, plan_trainings
from finetune.config.load_sweep import is_sweep
from finetune.errors import ConfigError
from finetune.machine.files import write_file
from finetune.text import printable


def job_text(
    scheduler: Scheduler,
    arguments: Sequence[str],
    request: Request,
    *,
    seeds: str | None,
    run_dir: Path | None,
) -> str:
    """Return the file of a job.

    Args:
        scheduler: who takes it.
        arguments: configs, and values for keys of all of them (`key=value`); or a sweep file.
        request: what the job asks for.
        seeds: with which each config is trained, such as `1,2,3` or `0-9`; None for its own.
        run_dir: the run directory of a single training, or the folder of those of several.

    Raises:
        ConfigError: a config with mistakes, or something that this scheduler cannot do.
    """
    trainings = _plan(scheduler, arguments, request, seeds=seeds, run_dir=run_dir)
    if request.at_once is not None and len(trainings) == 1:
        raise ConfigError(
            "--at-once is for several trainings.\nName further configs or --seeds, or leave it out."
        )
    stems = {training.config.stem for training in trainings}
    name = trainings[0].name if len(trainings) == 1 else stems.pop() if len(stems) == 1 else "finetune"
    if scheduler == "slurm":
        return slurm_script(name, trainings, request)
    if request.container is None:
        raise ConfigError(
            "--kubernetes: name the container image with --image; the Dockerfile of finetune builds one.\n"
            "For instance: --image registry.example.org/me/finetune:1"
        )
    if request.directives or request.container.engine:
        option = "--sbatch" if request.directives else "--engine"
        raise ConfigError(f"{option} is for Slurm.\nLeave it out, or write a script with --slurm.")
    return manifest(name, trainings, request, request.container.image)


def _plan(
    scheduler: Scheduler,
    arguments: Sequence[str],
    request: Request,
    *,
    seeds: str | None,
    run_dir: Path | None,
) -> Sequence[Training]:
    """Return the trainings of configs, or the workers of a sweep.

    Raises:
        ConfigError: as `job_text`.
    """
    first, several = Path(arguments[0]), read_seeds(seeds)
    if not (isfile(first) and is_sweep(first)):
        if request.workers is not None:
            raise ConfigError(
                f"--workers is for a sweep, and {printable(str(first))} is none.\n"
                "Leave it out; further configs or --seeds make an array of trainings."
            )
        return plan_trainings(arguments, seeds=several, run_dir=run_dir, on_gpu=request.gpus > 0)
    if scheduler != "slurm":
        raise ConfigError(
            f"{printable(str(first))}: the job of a sweep is for Slurm.\n"
            "Write it with --slurm; or set engine: ray in the file, and run it on a Ray cluster."
        )
    return plan_sweep(arguments, request, seeds=several, sweep_dir=run_dir)


def write_job(target: Path, text: str, scheduler: Scheduler) -> str:
    """Write the file of a job; return what to say of it.

    Raises:
        ResourceError: the system refuses.
    """
    write_file(target, text)
    command = "sbatch" if scheduler == "slurm" else "kubectl apply --filename"
    return f"wrote {printable(str(target))}; next: {command} {quoted(str(target))}"
