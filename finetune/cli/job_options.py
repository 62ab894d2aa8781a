"""The options of `finetune job`: for which scheduler, and what is asked for."""

from pathlib import Path
from typing import Annotated

import typer

from finetune.choices import ContainerEngine
from finetune.cli.completion import complete_keys

JobConfig = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A YAML file: a config, or a sweep.", show_default=False)
]
ConfigsOrOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CONFIG|KEY=VALUE",
        help="Further configs, for an array of trainings; and overrides of all, such as data.workers=8.",
        show_default=False,
        autocompletion=complete_keys,
    ),
]
ForSlurm = Annotated[bool, typer.Option("--slurm", help="Write a script for sbatch.")]
ForKubernetes = Annotated[bool, typer.Option("--kubernetes", help="Write a manifest for kubectl.")]
JobFile = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="The file to write.  [default: print it]"),
]
JobRunDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The run directory; of several trainings the folder of theirs.  [default: runs/CONFIG]",
    ),
]
Seeds = Annotated[
    str | None, typer.Option(metavar="LIST", help="Train each config with each of these: 1,2,3 or 0-9.")
]
Gpus = Annotated[int, typer.Option(min=0, max=64, help="GPUs of each node; 0 trains on the CPU.")]
Cpus = Annotated[int, typer.Option(min=1, help="Cores for each GPU, or for a node without.")]
Memory = Annotated[str, typer.Option(metavar="SIZE", help="Memory of each node: 32G, 500M.")]
Time = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="How long a job may take, in minutes, H:MM:SS or D-HH:MM:SS. Slurm then starts it again, "
        "Kubernetes does not.  [default: what the cluster allows]",
    ),
]
Nodes = Annotated[int, typer.Option(min=1, help="Nodes that train one model together.")]
Notice = Annotated[
    int,
    typer.Option(
        min=40, metavar="SECONDS", help="How long before its end the job is told: a step and a save must fit."
    ),
]
Restarts = Annotated[int, typer.Option(min=0, help="How often the job is started again at the most.")]
AtOnce = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Of several trainings, how many run at a time.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, max=1000, metavar="N", help="Of a sweep: how many jobs train its trials.  [default: 1]"
    ),
]
Image = Annotated[
    str | None, typer.Option(metavar="IMAGE", help="The container image to run in.", show_default=False)
]
Engine = Annotated[
    ContainerEngine | None,
    typer.Option(help="What runs the image on a Slurm cluster.  [default: apptainer]", show_default=False),
]
Directives = Annotated[
    list[str] | None,
    typer.Option(
        "--sbatch",
        metavar="OPTION",
        help="A further option of sbatch, such as partition=gpu. May be given several times.",
        show_default=False,
    ),
]
