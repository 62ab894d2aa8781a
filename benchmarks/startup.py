"""Measure how long commands take before they do something, and their memory.

    python benchmarks/startup.py [--rounds 15] [--parts light torch first-step]

The yardstick of commands without torch is a Python that imports typer, rich and pydantic and stops; that of
the others is a Python that imports torch and reads the weights of the same run. Each round starts one process
of each kind, in turn. What counts is the least CPU time of the process with all its threads, because other
work on the machine only adds; memory is the most that the process ever had, for torch while it ends. `train`
is a whole run of one step on 1,000 small pictures: the start, that step and the report.

The last part is `train` on 1,000 photographs until its first step is taken, beside `import torch`: with
resnet18, and with timm's EfficientNet-Lite0 where it is installed; before any cache is there and after.
Processes that it starts to look at images, or to load them, count by the clock alone.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from finetune.config.yaml_writer import write_value

FINETUNE = [sys.executable, "-m", "finetune"]
YARDSTICK = "import typer, rich.console; from pydantic import BaseModel"
TORCH = "import torch; from safetensors.torch import load_file; load_file({weights!r})"
IMAGES = 1000
PARTS = ("light", "torch", "first-step")
CONFIG = """\
precision: float32
data: {{path: {path}, image_size: 32, batch_size: 512, workers: 0, augment: none}}
model: {{arch: resnet18, weights: none}}
stages: [{{name: frozen, train: head, epochs: 1, lr: 0.003}}]
"""
PHOTOS = """\
precision: float32
data: {{path: {path}, image_size: 128, batch_size: 32}}
model: {{arch: "{arch}", weights: none}}
stages: [{{name: frozen, train: head, epochs: 1, lr: 0.003, features: live}}]
"""
FIRST_STEP = """
import importlib.abc, importlib.machinery, os, sys

class StopAfterFirstStep(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "finetune.training.step":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            step = module.TrainingStep.__call__
            module.TrainingStep.__call__ = lambda *values, **named: (step(*values, **named), os._exit(0))
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, StopAfterFirstStep())
from finetune.__main__ import main
main()
"""


def main() -> None:
    """Print CPU time and memory of each command, and its time as a multiple of its yardstick's."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages are compiled
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "light" in options.parts:
            report(light_commands(folder), options.rounds)
        if "torch" in options.parts:
            report(torch_commands(folder), options.rounds)
        if "first-step" in options.parts:
            draw_photographs(folder / "photographs")
            report_first_steps(folder, options.rounds)


def light_commands(folder: Path) -> dict[str, list[str]]:
    """Return commands that answer without torch, their yardstick first."""
    wrong = folder / "wrong.yaml"
    wrong.write_text(f"data: {{path: {write_value(str(folder))}}}\nmodle: {{}}\n", encoding="utf-8")
    return {
        "typer, rich and pydantic": [sys.executable, "-c", YARDSTICK],
        "finetune --help": [*FINETUNE, "--help"],
        "finetune train --help": [*FINETUNE, "train", "--help"],
        "an error in a config": [*FINETUNE, "train", str(wrong)],
        "finetune init --help": [*FINETUNE, "init", "--help"],
    }


def torch_commands(folder: Path) -> dict[str, list[str]]:
    """Train a model and return commands that use torch, their yardstick first."""
    images, run, config = folder / "images", folder / "run", folder / "config.yaml"
    draw_pictures(images)
    config.write_text(CONFIG.format(path=write_value(str(images))), encoding="utf-8")
    train = [*FINETUNE, "train", str(config), "--overwrite", "--run-dir"]
    subprocess.run([*train, str(run)], check=True, capture_output=True)
    picture = str(images / "0" / "0.png")
    return {
        "torch, and the weights": [
            sys.executable,
            "-c",
            TORCH.format(weights=str(run / "model.safetensors")),
        ],
        "finetune predict": [*FINETUNE, "predict", str(run), picture],
        "finetune evaluate": [*FINETUNE, "evaluate", str(run)],
        "finetune train": [*train, str(folder / "again")],
    }


def draw_pictures(folder: Path) -> None:
    """Draw pictures of two classes."""
    # Not before: the memory of a new process is at first that of the one that started it.
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(IMAGES):
        path = folder / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)


def draw_photographs(folder: Path) -> None:
    """Write 1,000 JPEGs of 500 × 375 in two class folders: twenty pictures, each at fifty qualities."""
    import numpy as np
    from photos import draw_photo

    generator = np.random.default_rng(0)
    for drawn in range(20):
        photo = draw_photo(generator)
        for quality in range(40, 90):
            path = folder / str(drawn % 2) / f"{drawn}-{quality}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo.save(path, quality=quality)


def report_first_steps(folder: Path, rounds: int) -> None:
    """Start trainings and `import torch` in turn; print the least seconds up to the first step."""
    archs = ["resnet18", *(["timm:tf_efficientnet_lite0"] if importlib.util.find_spec("timm") else [])]
    cache, used = folder / "cache", dict[str, list[tuple[float, float]]]()
    os.environ["XDG_CACHE_HOME"] = str(cache)
    for arch in archs:
        config = folder / f"{archs.index(arch)}.yaml"
        config.write_text(PHOTOS.format(path=write_value(str(folder / "photographs")), arch=arch))
        train = [sys.executable, "-c", FIRST_STEP, "train", str(config), "--overwrite", "--run-dir"]
        for _ in range(rounds):
            shutil.rmtree(cache / "finetune", ignore_errors=True)
            for name, command in (
                ("import torch", [sys.executable, "-c", "import torch"]),
                (f"{arch}, nothing cached", [*train, str(folder / "first")]),
                (f"{arch}, scan cached", [*train, str(folder / "first")]),
            ):
                started = time.perf_counter()
                cpu, _ = cpu_and_memory(command)
                used.setdefault(name, []).append((cpu, time.perf_counter() - started))
    least = {name: tuple(map(min, zip(*found, strict=True))) for name, found in used.items()}
    base = least["import torch"]
    for name, (cpu, clock) in least.items():
        beyond = f"beyond torch {cpu - base[0]:5.2f} and {clock - base[1]:5.2f}"
        print(f"{name:46} {cpu:6.2f} s of CPU, {clock:6.2f} by the clock, {beyond}")


def report(commands: dict[str, list[str]], rounds: int) -> None:
    """Run each command so many times, in turn, and print the least that it took."""
    used: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            used[name].append(cpu_and_memory(command))
    least = {name: tuple(map(min, zip(*found, strict=True))) for name, found in used.items()}
    base = next(iter(least.values()))[0]
    for name, (seconds, megabytes) in least.items():
        print(f"{name:26} {seconds:6.3f} s of CPU  {seconds / base:5.2f}  {megabytes:5.0f} MB")


def cpu_and_memory(command: list[str]) -> tuple[float, float]:
    """Return the CPU time in seconds and the largest resident memory in MB of a process."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    per_megabyte = 1e6 if sys.platform == "darwin" else 1e3
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / per_megabyte


if __name__ == "__main__":
    main()
