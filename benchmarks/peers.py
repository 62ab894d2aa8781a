"""Fine-tune one pretrained network on photographs with finetune and with other tools.

    python benchmarks/peers.py FOLDER... [--peers NAME...] [--python NAME=INTERPRETER]... [--seeds 3]
        [--arch timm:tf_efficientnet_lite0] [--size 128] [--batch 32] [--frozen 1] [--epochs 4] [--minutes 20]
        [--kill NAME...] [--log FILE]

Each folder holds train/ and val/ with one folder per class. Every tool gets the same files, pretrained
weights, image size, batch size, number of epochs and minutes, and a process of its own; the tools take
turns. Each is used by the recipe that it documents, and with nothing tuned on these images:

- finetune: the config that `finetune init` writes
- fastai: `vision_learner(...).fine_tune(epochs)` with `aug_transforms`, as in its tutorial
- timm: its loader, optimizer and scheduler with the default arguments of its `train.py`, which is no part of
  the package: SGD, 0.1 for 256 images of a batch, label smoothing 0.1, crops from 8%. Changed, because 300
  epochs become five: one epoch of warm-up instead of five, and a rate that moves at each step
- transformers: `Trainer` with the augmentation and the rate (2e-5) of `run_image_classification.py`
- transformers-1e-3: the same with a rate for a network whose head is new

A tool runs in the Python that runs this program unless --python names another one, in which finetune must be
installed too: it gives all of them the weights. What cannot be imported is listed and left out.

Printed for each tool and folder, over the seeds: the accuracy (mean, lowest and highest) on the images of
val/, and the CPU seconds of the whole process, imports and the final predictions included, also as a
multiple of finetune's. --log keeps each training as a line of JSON, and what stands there is not repeated.
With --kill a tool is killed by SIGKILL a second after its first checkpoint, continued from what it had saved,
and its final weights are compared with those of a training that nobody interrupted. For finetune itself
`benchmarks/kill.py` does that a hundred times.
"""

import argparse
import importlib
import json
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from peer_recipes import PEERS
from photographs import Outcome, Setting, add_shared, spread


def main() -> None:
    """Print a table for each folder, then what the kills left."""
    options = read_options()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    pythons = dict(pair.split("=", 1) for pair in options.python)
    names = [name for name in options.peers if importable(name, pythons.get(name, sys.executable))]
    setting = Setting(options.arch, options.size, options.batch, options.frozen, options.epochs, tta=False)
    print(
        f"{options.arch}, {options.size} px, batches of {options.batch}, "
        f"{options.frozen + options.epochs} epochs, {options.seeds} seeds"
    )
    for folder in options.folders:
        runs: dict[str, list[Outcome]] = {name: [] for name in names}
        for seed in range(options.seeds):
            for name in names:
                task = {"name": name, "folder": str(folder), "setting": asdict(replace(setting, seed=seed))}
                python = pythons.get(name, sys.executable)
                outcome = recorded(task, options.log) or trained(task, python, options)
                if outcome:
                    runs[name].append(outcome)
        print("\n".join(table(folder.name, runs)))
        for name in options.kill:
            print(killed(name, folder, setting, pythons.get(name, sys.executable)))


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--python", action="append", default=[], metavar="NAME=INTERPRETER")
    add_shared(parser)
    parser.add_argument("--minutes", type=float, default=20, help="limit of a training")
    resumable = [name for name, peer in PEERS.items() if peer.continued]
    parser.add_argument("--kill", nargs="+", default=[], choices=resumable)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def importable(name: str, python: str) -> bool:
    """Tell whether a Python has a tool, and say so if it has not."""
    package = PEERS[name].package
    done = subprocess.run([python, "-c", f"import {package}"], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"{name} is left out: {python} cannot import {package} ({reason})")
    return not done.returncode


def recorded(task: dict[str, Any], log: Path | None) -> Outcome | None:
    """Return what a training left in the log; None if it is not there."""
    lines = log.read_text().splitlines() if log is not None and log.exists() else []
    outcomes = [line["outcome"] for line in map(json.loads, lines) if line["task"] == task]
    return outcomes[-1] if outcomes else None


def trained(task: dict[str, Any], python: str, options: argparse.Namespace) -> Outcome | None:
    """Train in a process of its own; None if that took longer than all tools may take."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(
            worker(task, python), capture_output=True, text=True, check=False, timeout=60 * options.minutes
        )
    except subprocess.TimeoutExpired:
        print(f"{task['name']} took more than {options.minutes:g} minutes")
        return None
    if done.returncode:
        raise SystemExit(f"{task['name']}: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    outcome: Outcome = json.loads(done.stdout.splitlines()[-1]) | {"cpu": cpu}
    if options.log is not None:
        with options.log.open("a") as file:
            file.write(json.dumps({"task": task, "outcome": outcome}) + "\n")
    return outcome


def worker(task: dict[str, Any], python: str) -> list[str]:
    """Return the command of a process that trains once."""
    return [python, __file__, "--worker", json.dumps(task)]


def table(title: str, runs: dict[str, list[Outcome]]) -> Iterator[str]:
    """Write the table of one folder."""
    yield f"\n| {title} | seeds | accuracy | CPU seconds | of finetune's |"
    yield "|---|---|---|---|---|"
    base = mean_cpu(runs.get("finetune", []))
    for name, outcomes in runs.items():
        if not outcomes:
            yield f"| {name} | 0 | – | – | – |"
            continue
        accuracies = [100 * statistics.mean(outcome["right"]) for outcome in outcomes]
        cpu = mean_cpu(outcomes)
        ratio = f"{cpu / base:.2f}" if base else "–"
        label = f"{name} ({outcomes[0]['version']})"
        yield f"| {label} | {len(outcomes)} | {spread(accuracies)} | {cpu:.0f} | {ratio} |"


def mean_cpu(outcomes: Sequence[Outcome]) -> float:
    """Return the mean CPU seconds of some trainings; 0 if there are none."""
    return statistics.mean(outcome["cpu"] for outcome in outcomes) if outcomes else 0.0


def killed(name: str, folder: Path, setting: Setting, python: str) -> str:
    """Say whether a tool that was killed and continued ends with the weights of one that was not."""
    task = {"name": name, "folder": str(folder), "setting": asdict(setting)}
    with tempfile.TemporaryDirectory() as parent:
        whole, broken = ({**task, "out": str(Path(parent, part))} for part in ("whole", "broken"))
        expected, failure = digest_of(whole, python)
        if failure:
            raise SystemExit(f"{name}: {failure}")
        process = subprocess.Popen(
            worker(broken, python), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not list(Path(parent, "broken").glob("checkpoint*")):
            time.sleep(0.05)
        time.sleep(1)
        if process.poll() is not None:
            return f"{name} on {folder.name}: ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        digest, failure = digest_of(broken, python)
    result = "the same weights, bit for bit" if digest == expected else "other weights"
    if failure:
        result = f"it does not go on: {failure.strip().splitlines()[-1]}"
    return f"{name} on {folder.name}, killed and continued: {result}"


def digest_of(task: dict[str, Any], python: str) -> tuple[str, str]:
    """Train in a folder until the end; return the digest of the weights, and the error if it failed."""
    done = subprocess.run(worker(task, python), capture_output=True, text=True, check=False)
    if done.returncode:
        return "", done.stderr[-2000:] or f"exit code {done.returncode}"
    return str(json.loads(done.stdout.splitlines()[-1])["digest"]), ""


def version_of(package: str) -> str:
    """Return the version that a package names itself; its distribution may have another name."""
    return str(importlib.import_module(package).__version__)


def work(task: dict[str, Any]) -> Outcome:
    """Train once, in this process."""
    peer = PEERS[task["name"]]
    setting = Setting(**task["setting"])
    if "out" in task and peer.continued:
        return {"digest": peer.continued(Path(task["folder"]), setting, Path(task["out"]))}
    outcome = peer.train(Path(task["folder"]), setting)
    return outcome | {"version": version_of(peer.package)}


if __name__ == "__main__":
    main()
