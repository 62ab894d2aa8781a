"""Measure how long a command takes to answer, in times of importing what it cannot do without.

    python benchmarks/startup.py [--rounds 15]

Each round starts one process of each kind, in turn; the least time of each counts, because other work on the
machine only adds. The yardstick is a Python that imports typer, rich and pydantic and stops.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from finetune.config.yaml_writer import write_value

YARDSTICK = "import typer, rich.console; from pydantic import BaseModel"


def main() -> None:
    """Print one ratio for each command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        wrong = Path(folder) / "wrong.yaml"
        wrong.write_text(f"data: {{path: {write_value(folder)}}}\nmodle: {{}}\n", encoding="utf-8")
        finetune = [sys.executable, "-m", "finetune"]
        commands = {
            "typer, rich and pydantic": [sys.executable, "-c", YARDSTICK],
            "finetune --help": [*finetune, "--help"],
            "finetune train --help": [*finetune, "train", "--help"],
            "an error in a config": [*finetune, "train", str(wrong)],
            "finetune init --help": [*finetune, "init", "--help"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                began = time.perf_counter()
                subprocess.run(command, capture_output=True, check=False)
                seconds[name].append(time.perf_counter() - began)
    base = min(seconds["typer, rich and pydantic"])
    for name, times in seconds.items():
        print(f"{name:26} {min(times):.3f} s  {min(times) / base:.2f}")


if __name__ == "__main__":
    main()
