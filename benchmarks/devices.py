"""Train on several devices, and compare with one: the weights, and what kills do.

    python benchmarks/devices.py                    # all of it: minutes on two cores
    python benchmarks/devices.py equal              # 1 × 8 = 2 × 4 = 4 × 2: how far weights are apart
    python benchmarks/devices.py kill --kills 100   # kill ranks in every phase; all end with the same weights

Devices are processes on the CPU here, one thread each. `equal` trains 12 steps of everything, from random
weights, with dropout, augmentation, metadata that are dropped out, and batch norm whose statistics move:
batches of 8 in one process, 4 in each of two, 2 in each of four. The figure beside the difference is that
between one process with one thread and with two: what another order of sums alone makes of the same steps.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

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


KILLED = """
precision: float32
data: {path: "builtin:digits", images_per_class: 12, image_size: 32, batch_size: 16, augment: light}
model: {arch: shufflenet_v2_x0_5, weights: "builtin:glyphs", head: {hidden: [32]}}
checkpoint: {every: 2}
lr_finder: {steps: 20, race_steps: 5, start: 1e-5}
stages:
  - {name: frozen, train: head, epochs: 2, lr: 1e-2}
  - {name: unfrozen, train: all, epochs: 4, lr: "slice(auto/100, auto)"}
"""


def kill(folder: Path, kills: int) -> None:
    """Kill one rank after another at random moments under torchrun, which starts all again, and compare."""
    (folder / "config.yaml").write_text(KILLED)
    began = time.monotonic()
    expected = load_file(train(folder, "alone", devices=2) / "model.safetensors")
    usual, chosen = time.monotonic() - began, random.Random(1)
    done, counted, wrong = 0, Counter[tuple[int, str]](), 0
    while done < kills:
        run = folder / f"killed-{done}"
        command = command_of(folder, run, devices=2)
        place = command.index("-m", 2)
        command[place:place] = ["--max-restarts", "3"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(min(3, kills - done)):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chosen.uniform(0.2, 0.8) * usual)
            pids = ranks_of(process.pid)
            if process.poll() is None and (rank := done % 2) in pids:
                counted[rank, phase_of(run)] += 1
                os.kill(pids[rank], signal.SIGKILL)
                done += 1
        ended = process.wait(timeout=600)
        found = load_file(run / "model.safetensors") if ended == 0 else {}
        same = found.keys() == expected.keys() and all(found[name].equal(expected[name]) for name in found)
        wrong += not same
        print(
            f"{done} kills, {'the same weights' if same else f'OTHER weights, exit code {ended}'}", flush=True
        )
    for (rank, phase), number in sorted(counted.items()):
        print(f"rank {rank}, {phase}: {number}")
    print(f"{done} kills, {wrong} runs with other weights")


def phase_of(run: Path) -> str:
    """Return what a run is at, by its last event."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        last = [event for event in events if event["event"] != "resume"][-1]
        return f"after {last['event']} of {last.get('stage', 'all')}"
    return "before the first stage"


def ranks_of(launcher: int) -> dict[int, int]:
    """Return the process of each rank."""
    found = {}
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(launcher)], capture_output=True, text=True)
    for pid in map(int, children.stdout.split()):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
            found |= {int(line.removeprefix("RANK=")): pid for line in lines if line.startswith("RANK=")}
    return found


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["equal", "kill"])
    parser.add_argument("--kills", type=int, default=100)
    wanted = parser.parse_args()
    stories = {"equal": equal, "kill": partial(kill, kills=wanted.kills)}
    with tempfile.TemporaryDirectory() as folder:
        for what in wanted.what:
            stories[what](Path(folder))


if __name__ == "__main__":
    main()
