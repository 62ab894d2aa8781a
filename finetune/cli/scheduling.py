"""The command that hands trainings to a cluster."""

from finetune.choices import Scheduler
from finetune.cli.app import app, check_output_path, print_result, reported_errors
from finetune.cli.job_options import (
    AtOnce,
    ConfigsOrOverrides,
    Cpus,
    Directives,
    Engine,
    ForKubernetes,
    ForSlurm,
    Gpus,
    Image,
    JobConfig,
    JobFile,
    JobRunDir,
    Memory,
    Nodes,
    Notice,
    Restarts,
    Seeds,
    Time,
    Workers,
)
from finetune.cli.keys import ConfigCommand
from finetune.errors import ConfigError
from finetune.machine.files import check_unused


@app.command(cls=ConfigCommand)
def job(
    config: JobConfig,
    arguments: ConfigsOrOverrides = None,
    slurm: ForSlurm = False,
    kubernetes: ForKubernetes = False,
    output: JobFile = None,
    run_dir: JobRunDir = None,
    seeds: Seeds = None,
    gpus: Gpus = 1,
    cpus: Cpus = 8,
    memory: Memory = "32G",
    time: Time = None,
    nodes: Nodes = 1,
    notice: Notice = 180,
    restarts: Restarts = 50,
    at_once: AtOnce = None,
    workers: Workers = None,
    image: Image = None,
    engine: Engine = None,
    sbatch: Directives = None,
) -> None:
    """Write a job for Slurm or Kubernetes that trains and resumes."""
    with reported_errors():
        from finetune.commands.job import job as story
        from finetune.commands.job.request import Container, Request

        scheduler = _scheduler(slurm=slurm, kubernetes=kubernetes)
        container, directives = Container.of(image, engine), tuple(sbatch or ())
        size = (gpus, cpus, memory, nodes, time, notice, restarts, at_once)
        request = Request(*size, container=container, directives=directives, workers=workers)
        if output is not None:
            check_unused(output)
        check_output_path("--output", output)
        named = [str(config), *(arguments or [])]
        text = story.job_text(scheduler, named, request, seeds=seeds, run_dir=run_dir)
        if output is None:
            print_result(text, end="")
        else:
            print(story.write_job(output, text, scheduler))


def _scheduler(*, slurm: bool, kubernetes: bool) -> Scheduler:
    """Return which scheduler was named.

    Raises:
        ConfigError: none, or both.
    """
    if slurm == kubernetes:
        raise ConfigError(
            "A job is for one scheduler: add --slurm for a script, or --kubernetes for a manifest.\n"
            "For instance: finetune job photos.yaml --slurm --gpus 1 --time 4:00:00 > job.sh"
        )
    return "slurm" if slurm else "kubernetes"
