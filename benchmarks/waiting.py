"""Measure how long threads of OpenMP should wait for each other in a loop before they sleep.

    python benchmarks/waiting.py                 # the quickstart, some minutes
    python benchmarks/waiting.py photos.yaml --rounds 3 --turns 300000 3000 0
    python benchmarks/waiting.py --programs 0    # on quiet cores alone

Trains a config with each number of turns (`GOMP_SPINCOUNT`): first alone, then beside as many programs as
there are cores, each of which keeps one busy. The weights of all these runs have to be the same. Shown are
the medians of the clock and of the CPU time over the rounds, in each of which all numbers take their turn.
"""

import argparse
import hashlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.cli import OPENMP_TURNS
from finetune.machine.cores import usable_cores

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
TURNS = (300_000, 30_000, 10_000, int(OPENMP_TURNS), 1_000, 0)
"""The first is OpenMP's own."""


@contextmanager
def busy_programs(number: int) -> Iterator[None]:
    """Keep so many cores busy meanwhile."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def train(config: Path, turns: int) -> tuple[float, float, str]:
    """Return the seconds of a training by the clock, those on the processor, and a digest of its weights."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "finetune", "train", str(config), "--quiet", "--run-dir", str(run)]
        environment = os.environ | {"GOMP_SPINCOUNT": str(turns)}
        spent, began = cpu_seconds(), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        seconds = time.perf_counter() - began
        digest = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    return seconds, cpu_seconds() - spent, digest


def cpu_seconds() -> float:
    """Return the CPU time of the processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the time of a training for each number of turns, alone and beside busy programs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("config", type=Path, nargs="?", default=QUICKSTART)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--turns", type=int, nargs="+", default=TURNS)
    parser.add_argument("--programs", type=int, nargs="+", default=(0, usable_cores()))
    options = parser.parse_args()
    digests = set()
    for programs in options.programs:
        taken: dict[int, list[tuple[float, float]]] = {turns: [] for turns in options.turns}
        for _ in range(options.rounds):
            for turns, times in taken.items():
                with busy_programs(programs):
                    *seconds, digest = train(options.config, turns)
                times.append((seconds[0], seconds[1]))
                print(f"beside {programs}, {turns:,} turns: {seconds[0]:.1f} s", file=sys.stderr, flush=True)
                digests.add(digest)
        print(f"beside {programs} busy programs:" if programs else "alone:")
        for turns, times in taken.items():
            clock, cpu = (statistics.median(each) for each in zip(*times, strict=True))
            print(f"  {turns:7,} turns  {clock:6.1f} s by the clock  {cpu:6.1f} s of CPU", flush=True)
    print(f"different weights: {len(digests) - 1}")


if __name__ == "__main__":
    main()
