"""The job as a script for Slurm's `sbatch`.

`srun` starts each process of a training. Slurm sends its signals to every process of such a step, so each
rank gets one, and the exit code is that of the training. `torchrun` would die of the SIGUSR1, pass a SIGTERM
on to ranks that have it already, and turn every exit code into 1 (docs/jobs.md).
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from os.path import commonpath, isabs

from finetune.commands.job.request import Container, Request
from finetune.commands.job.trainings import Training, absolute_paths, data_folder
from finetune.errors import ConfigError, Stopped
from finetune.text import printable
from finetune.version import VERSION

_LAST_STARTS = """\
# 75: a signal stopped the training, and everything is saved. Any other code is the end: 0 done, 2 config,
# 3 data, 4 diverged, 5 damaged or changed run, 6 memory or disk, 7 device or weights, 8 run directory.
if [ "$code" -ne {stopped} ]; then
  exit "$code"
fi
if [ "$restarts" -ge {most} ]; then
  echo "stopped, and not started again: this was start $((restarts + 1)); submit the job anew to go on" >&2
  exit {stopped}
fi
echo "stopped and saved; requeueing job $SLURM_JOB_ID" >&2
scontrol requeue "$SLURM_JOB_ID"
exit {stopped}
"""

_RANKS = """\
# What torchrun would tell each process; srun starts one for each {device}.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
WORLD_SIZE=$SLURM_NTASKS
LOCAL_WORLD_SIZE={processes}
export MASTER_ADDR MASTER_PORT WORLD_SIZE LOCAL_WORLD_SIZE
# shellcheck disable=SC2016  # each process has variables of its own
as_rank='export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID; exec "$@"'

"""

_ESCAPED = {"\n": "\\n", "\t": "\\t", "\\": "\\\\", "'": "\\'"}


def slurm_script(name: str, trainings: Sequence[Training], request: Request) -> str:
    """Return the script: options of sbatch, what the user fills in, the training, and when it is requeued.

    Args:
        name: of the job.
        trainings: one, or several that become an array.
        request: what the job asks for.

    Raises:
        ConfigError: a path that the container's command line cannot hold.
    """
    stop = {"stopped": Stopped.exit_code, "most": request.restarts}
    device = "GPU" if request.gpus else "node"
    ranks = _RANKS.format(device=device, processes=request.processes) if request.ranks > 1 else ""
    return (
        f"#!/bin/bash\n{_directives(name, trainings, request)}\n{_own_part(request)}\n"
        'restarts=${SLURM_RESTART_COUNT:-0}\necho "start $((restarts + 1)) on $SLURM_JOB_NODELIST"\n\n'
        f"{_choice(trainings)}\n"
        "# The same threads on every node: on a CPU the bits of a result depend on their number.\n"
        "export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK\n\n"
        f"{ranks}{_launch(trainings, request)}\ncode=$?\n\n{_LAST_STARTS.format(**stop)}"
    )


def quoted(word: str) -> str:
    """Return a word for bash, on one line whatever is in it: none may begin as an option of sbatch does."""
    if word.isprintable():
        return shlex.quote(word)
    inner = "".join(_ESCAPED.get(c, c if c.isprintable() else _in_octal(c)) for c in word)
    return f"$'{inner}'"


def _in_octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode())


def job_name(text: str) -> str:
    """Return a name that sbatch, file names and `%x` take as it stands."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "finetune"


def _directives(name: str, trainings: Sequence[Training], request: Request) -> str:
    """Write what sbatch reads; options on its command line go before these."""
    several = len(trainings) > 1
    at_once = f"%{request.at_once}" if request.at_once else ""
    options = {
        "job-name": job_name(name),
        "array": f"0-{len(trainings) - 1}{at_once}" if several else None,
        "nodes": str(request.nodes),
        "ntasks-per-node": str(request.processes),
        "cpus-per-task": str(request.cpus),
        "gpus-per-node": str(request.gpus) if request.gpus else None,
        "mem": request.memory.upper(),
        "time": request.time,
        "signal": f"USR1@{request.notice}",
        "requeue": "",
        "output": "%x-%A_%a.out" if several else "%x-%j.out",
        "open-mode": "append",
    }
    written = [
        f"{option}={value}" if value else option for option, value in options.items() if value is not None
    ]
    lines = [f"#SBATCH --{option}" for option in (*written, *request.directives)]
    configs = list(dict.fromkeys(printable(str(training.config)) for training in trainings))
    more = ", …" if len(configs) > 3 else ""
    about = f"# finetune {VERSION} wrote this for {', '.join(configs[:3])}{more}.\n"
    return f"{about}{_HOW}" + "".join(f"{line}\n" for line in lines)


_HOW = """\
# Submit it with sbatch, from the folder in which relative paths begin. It may be submitted again at any time:
# a run that was stopped is resumed, and one that is finished says so. See docs/jobs.md of finetune.
"""


def _own_part(request: Request) -> str:
    """Write the place for what each cluster does in its own way."""
    needed = "the container engine" if request.container else "the command `finetune`"
    example = "apptainer" if request.container else "cuda"
    activate = "" if request.container else "#   source .venv/bin/activate\n"
    return f"# Put here what makes {needed} available, for instance:\n#   module load {example}\n{activate}"


def _choice(trainings: Sequence[Training]) -> str:
    """Write the command of the training, or of each task of an array."""
    commands = [" ".join(map(quoted, training.command())) for training in trainings]
    if len(set(commands)) == 1:  # one training, or workers of a sweep
        return f"training=({commands[0]})\n"
    cases = "".join(f"  {task}) training=({command}) ;;\n" for task, command in enumerate(commands))
    other = (
        f'  *) echo "no training has the number $SLURM_ARRAY_TASK_ID" >&2; exit {ConfigError.exit_code} ;;\n'
    )
    return f'case "$SLURM_ARRAY_TASK_ID" in\n{cases}{other}esac\n'


def _launch(trainings: Sequence[Training], request: Request) -> str:
    """Write the line that starts the training, in the container if there is one."""
    words = ["srun"]
    if request.ranks > 1:
        # Whoever ends first must not have the rank killed that still saves.
        words += ["--kill-on-bad-exit=0", "--wait=120"]
    inside: list[str] = []
    if request.container is not None:
        folders = list(_folders(trainings))
        if request.container.engine == "enroot":
            words += _pyxis(request.container, folders)
        else:
            inside = _apptainer(request.container, folders, on_gpu=request.gpus > 0)
    if request.ranks > 1:
        words += ["bash", "-c", '"$as_rank"', "rank"]
    return " ".join([*words, *inside, '"${training[@]}"'])


def _apptainer(container: Container, folders: Sequence[str], *, on_gpu: bool) -> list[str]:
    nvidia = ["--nv"] if on_gpu else []
    binds = [word for folder in folders for word in ("--bind", quoted(folder))]
    return [
        "apptainer",
        "exec",
        *nvidia,
        "--bind",
        '"$PWD"',
        *binds,
        "--pwd",
        '"$PWD"',
        quoted(container.image),
    ]


def _pyxis(container: Container, folders: Sequence[str]) -> list[str]:
    mounts = "".join(f",{quoted(f'{folder}:{folder}')}" for folder in folders)
    return [
        f"--container-image={quoted(container.image)}",
        f'--container-mounts="$PWD:$PWD"{mounts}',
        '--container-workdir="$PWD"',
    ]


def _folders(trainings: Sequence[Training]) -> Iterator[str]:
    """Return the folders outside of the current one that the trainings read or write, each once.

    Raises:
        ConfigError: one of them has a character that separates paths on the container's command line.
    """
    found: dict[str, None] = {}
    for training in trainings:
        for key, path in absolute_paths(training.settings):
            found[str(data_folder(path) if key == "data.path" else path)] = None
        found |= {str(path.parent): None for path in (training.config, training.run_dir) if isabs(path)}
    for folder in found:
        if re.search(r"[:,]", folder):
            raise ConfigError(
                f"{folder}: apptainer and enroot read : and , in a path as separators; rename it, or name it "
                "relative to the folder from which the job is submitted."
            )
        if not any(other != folder and commonpath([folder, other]) == other for other in found):
            yield folder
