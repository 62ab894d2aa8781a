"""Train on several devices, and compare with one: the weights, and what kills do.

    python benchmarks/devices.py                    # all of it: minutes on two cores
    python benchmarks/devices.py equal              # 1 × 8 = 2 × 4 = 4 × 2: how far weights are apart
    python benchmarks/devices.py kill --kills 100   # kill each rank in each phase; all end with the same bits
    python benchmarks/devices.py kill --log kills.jsonl     # the same, going on from a log when interrupted
    python benchmarks/devices.py scaling            # images a second of one process and of two, a thread each
    python benchmarks/devices.py memory             # what a process holds with and without `shard: weights`

Devices are processes on the CPU here, one thread each. `equal` trains 12 steps of everything, from random
weights, with dropout, augmentation, metadata that are dropped out, and batch norm whose statistics move:
batches of 8 in one process, 4 in each of two, 2 in each of four. The figure beside the difference is that
between one process with one thread and with two: what another order of sums alone makes of the same steps.

`scaling` trains all layers of two networks on the same global batches, in one process and in two, in turn,
with statistics of batch norm that stand still and with such that move. It takes the images a second of the
last epoch from the history of each run. Efficiency is the ratio of the two, divided by two. Cores that other
programs use as well take from both.

`memory` counts the bytes of tensors that a process holds when the optimizer steps, the most of all ranks:
weights and running statistics, gradients, and optimizer states. `resident` is the highest resident memory of
the process in three steps of batches of 8 images of 64 px: with Python, torch, activations and what has been
freed and not been given back to the machine (see `held_by_ranks.py`).
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from itertools import product
from pathlib import Path

from killed_ranks import kill
from safetensors.torch import load_file

EQUAL = """
precision: float32
seed: 3
data: {path: "builtin:turned-digits", images_per_class: 10, image_size: 32, batch_size: 8, augment: light}
model: {weights: none, head: {hidden: [64]}}
optimizer: {name: sgd}
stages: [{name: all, train: all, epochs: 1, lr: 1e-4, batch_norm: train}]
"""
CASES = {
    "resnet18": ["model.arch=resnet18", "data.columns.metadata=[]"],
    "resnet18, mixup and cutmix, two batches to a step": [
        "model.arch=resnet18",
        "data.columns.metadata=[]",
        "data.mixup=0.4",
        "data.cutmix=1.0",
        "data.batch_size=4",
        "data.accumulate=2",
    ],
    "efficientnet_b0 (stochastic depth) and metadata": [
        "model.arch=efficientnet_b0",
        "data.columns.metadata=[site]",
    ],
    "convnext_tiny (layer norm, stochastic depth), adamw": [
        "model.arch=convnext_tiny",
        "data.columns.metadata=[]",
        "optimizer.name=adamw",
    ],
}


def command_of(folder: Path, run: Path, *arguments: str, devices: int = 1) -> list[str]:
    """Return the command that trains in some processes, also where there are fewer cores."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(devices)]
    train = [
        "-m",
        "finetune",
        "train",
        str(folder / "config.yaml"),
        *arguments,
        "--run-dir",
        str(run),
        "--quiet",
    ]
    return [sys.executable, *(torchrun if devices > 1 else []), *train]


def train(folder: Path, name: str, *arguments: str, devices: int = 1, threads: int = 1) -> Path:
    """Train, and return the run directory."""
    run = folder / name
    command = command_of(folder, run, *arguments, "--overwrite", devices=devices)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return run


def difference(one: Path, other: Path) -> float:
    """Return the largest difference between the weights of two runs."""
    first, second = (load_file(run / "model.safetensors") for run in (one, other))
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def equal(folder: Path) -> None:
    """Print how far apart the weights are that one, two and four processes have trained."""
    (folder / "config.yaml").write_text(EQUAL)
    heading = "largest difference of a weight after 12 steps"
    print(f"{heading:<60} {'1 × 8, 2 × 4':>12} {'1 × 8, 4 × 2':>12} {'threads':>9}")
    for title, arguments in CASES.items():
        one = train(folder, "one", *arguments)
        found = [difference(one, train(folder, f"on-{n}", *arguments, devices=n)) for n in (2, 4)]
        found.append(difference(one, train(folder, "threads", *arguments, threads=2)))
        print(f"{title:<60} {found[0]:>12.1e} {found[1]:>12.1e} {found[2]:>9.1e}", flush=True)


SCALING = """
precision: float32
data: {path: "builtin:digits", images_per_class: 16, val: 0.05, image_size: 96, batch_size: 32}
model: {weights: none}
stages: [{name: all, train: all, epochs: 2, lr: 1e-4}]
"""


def scaling(folder: Path, repeats: int = 3) -> None:
    """Print the images a second of one and of two processes with one thread each, medians of some runs."""
    (folder / "config.yaml").write_text(SCALING)
    columns = f"{'batch norm':>10} {'1 process':>10} {'2 processes':>12} {'efficiency':>11}"
    print(f"{'images a second':<18} {columns}")
    for arch, batch_norm in product(("resnet18", "efficientnet_b0"), ("still", "train")):
        found: dict[int, list[float]] = {1: [], 2: []}
        overrides = (f"model.arch={arch}", f"stages.all.batch_norm={batch_norm}")
        for _ in range(repeats):
            for devices, speeds in found.items():
                run = train(folder, "speed", *overrides, devices=devices)
                with open(run / "history.csv") as file:
                    *_, last = csv.DictReader(file)
                speeds.append(float(last["images_per_second"]))
        one, two = (statistics.median(speeds) for speeds in found.values())
        print(f"{arch:<18} {batch_norm:>10} {one:>10.1f} {two:>12.1f} {two / one / 2:>11.0%}", flush=True)


MEMORY = """
precision: float32
device: cpu
data: {path: "builtin:digits", images_per_class: 10, image_size: 64, batch_size: 8, workers: 0}
model: {weights: none}
optimizer: {name: adamw}
stages: [{name: all, train: all, epochs: 1, lr: 1e-4}]
"""


def held(folder: Path, *overrides: str, devices: int) -> dict[str, int]:
    """Return the most that a process of a training holds of each kind, in bytes."""
    script, out = Path(__file__).with_name("held_by_ranks.py"), folder / "held"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(devices)]
    command = [sys.executable, *(torchrun if devices > 1 else []), str(script), str(folder / "config.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(out), *overrides], env=environment, check=True)
    each = [json.loads(Path(f"{out}.{rank}").read_text()) for rank in range(devices)]
    return {kind: max(one[kind] for one in each) for kind in each[0]}


def memory(folder: Path) -> None:
    """Print what each process holds in a step, for one, two and four that divide the weights or do not."""
    (folder / "config.yaml").write_text(MEMORY)
    kinds = ("weights", "gradients", "states")
    columns = (*kinds, "together", "resident")
    print(f"{'MiB of a process, adamw':<39}" + "".join(f"{column:>10}" for column in columns))
    for arch in ("resnet50", "convnext_base"):
        for devices, shard in ((1, "none"), (2, "none"), (2, "weights"), (4, "none"), (4, "weights")):
            counted = held(folder, f"model.arch={arch}", f"shard={shard}", devices=devices)
            counted["together"] = sum(counted[kind] for kind in kinds)
            divided = ", shard: weights" if shard == "weights" else ""
            title = f"{arch}, {devices} device{'s' * (devices > 1)}{divided}"
            values = "".join(f"{counted[column] / 2**20:>10,.0f}" for column in columns)
            print(f"{title:<39}{values}", flush=True)


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["equal", "kill", "scaling", "memory"])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--log", type=Path, help="where kills are noted, to go on from")
    wanted = parser.parse_args()
    killed = partial(kill, kills=wanted.kills, log=wanted.log)
    stories = {"equal": equal, "kill": killed, "scaling": scaling, "memory": memory}
    with tempfile.TemporaryDirectory() as folder:
        for what in wanted.what:
            stories[what](Path(folder))


if __name__ == "__main__":
    main()
