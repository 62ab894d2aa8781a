"""Kill a training at random moments, resume it until it ends, and compare it with one that was left alone.

    python benchmarks/kill.py                   # 100 kills; minutes on two cores
    python benchmarks/kill.py --kills 20 --seed 7

The training has two stages, augmentation, dropout, and a rate that is looked for; a checkpoint is written
after every second step, so that many kills fall into the midst of a write. Each run is started, killed with
SIGKILL after a random time, resumed, killed again, three times on average, and then resumed until its end.
What it has left must be that of the run that was left alone, bit for bit: the best and the last weights,
history, events, report, config and found rate, times aside. The numbers of loader workers change between
resumes. With `--signal TERM` it is stopped instead, which must save and exit with 75.
"""

import argparse
import atexit
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from run_result import result_of

from finetune.cli import load_app

CONFIG = """
precision: float32
monitor: val_loss
data: {path: "builtin:digits", images_per_class: 12, val: 0.1, image_size: 32, batch_size: 16, augment: light}
model: {arch: shufflenet_v2_x0_5, weights: "builtin:glyphs", head: {hidden: [32]}}
checkpoint: {every: 2}
lr_finder: {steps: 30, race_steps: 10, start: 1e-5}
stages:
  - {name: frozen, train: head, epochs: 3, lr: 1e-2}
  - {name: unfrozen, train: all, epochs: 4, lr: "slice(auto/100, auto)"}
"""


def result_with_any_workers(run: Path) -> dict[str, Any]:
    """Return all that a run has left, but for the one thing that is changed here: how many load images."""
    result = result_of(run)
    return result | {"config": [line for line in result["config"].splitlines() if "workers" not in line]}


def train(config: str, run: str, workers: int) -> None:
    """Start or resume a training, as the command line does, and end with its exit code."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # loader workers are this process's own, as ever
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (to the end of the process)
    sys.stderr = open(f"{run}.errors", "w", encoding="utf-8")  # noqa: SIM115
    try:
        load_app("train")(["train", config, "--run-dir", run, "--resume", f"data.workers={workers}"])
    finally:
        atexit._run_exitfuncs()  # a process of multiprocessing passes over what is to be done at exit


def start(config: Path, run: Path, workers: int) -> BaseProcess:
    """Start a training in a process of its own."""
    # Forked from a process that has loaded torch and trained nothing: it takes seconds to load.
    process = multiprocessing.get_context("forkserver").Process(
        target=train, args=(str(config), str(run), workers)
    )
    process.start()
    return process


def finish(process: BaseProcess, run: Path) -> tuple[int | None, str]:
    """Wait for the end of a process; give its exit code and what it said."""
    process.join()
    return process.exitcode, Path(f"{run}.errors").read_text() if Path(f"{run}.errors").exists() else ""


def phase_of(run: Path) -> str:
    """Say where a run stood when it was killed, from its files."""
    if not (run / "started.json").exists():
        return "before the beginning"
    if list((run / "checkpoints").glob(".*.tmp")):
        return "in a write of a checkpoint"
    if (run / "report.json").exists():
        return "after the end"
    events = (run / "events.jsonl").read_text() if (run / "events.jsonl").exists() else ""
    return "the unfrozen stage" if '"stage": "unfrozen"' in events else "the frozen stage, or the search"


def main() -> None:
    """Kill, resume and compare, and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    arguments = parser.parse_args()
    multiprocessing.set_forkserver_preload(["finetune.commands.train.train", "finetune.cli.training"])
    chance, number = random.Random(arguments.seed), signal.Signals[f"SIG{arguments.signal}"]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "kill.yaml")
        config.write_text(CONFIG)
        whole = Path(folder, "whole")
        start(config, Path(folder, "first"), 0).join()  # loads everything once
        began = time.monotonic()
        code, errors = finish(start(config, whole, 0), whole)
        if code:
            raise SystemExit(f"the run that was left alone ended with {code}: {errors}")
        duration, expected = time.monotonic() - began, result_with_any_workers(whole)
        print(f"seed {arguments.seed}; left alone: {duration:.1f} s")
        kills, runs, phases = 0, 0, Counter[str]()
        while kills < arguments.kills:
            run = Path(folder, f"run{runs}")
            for _ in range(chance.randint(1, 5)):
                process = start(config, run, chance.choice((0, 2)))
                time.sleep(chance.uniform(0.0, 1.0) * duration)
                if process.pid is not None and process.is_alive():
                    os.kill(process.pid, number)
                code, errors = finish(process, run)
                if code not in ((-9,) if arguments.signal == "KILL" else (75, -15)):
                    if code:
                        raise SystemExit(f"{run.name}: stopped with {code}: {errors}")
                    break  # it was done before
                kills += 1
                phases[phase_of(run)] += 1
            code, errors = finish(start(config, run, chance.choice((0, 2))), run)
            if code:
                raise SystemExit(f"{run.name}: the resumed run ended with {code}: {errors}")
            got = result_with_any_workers(run)
            different = [what for what, value in expected.items() if got[what] != value]
            if different:
                raise SystemExit(f"{run.name} after {kills} kills: different {', '.join(different)}")
            runs += 1
            print(f"{kills} kills, {runs} runs, all equal", flush=True)
    for phase, count in phases.most_common():
        print(f"  {count:3} in or after: {phase}")


if __name__ == "__main__":
    main()
