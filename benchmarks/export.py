"""Export all architectures of torchvision and one of each family of timm, and compare files with networks.

    python benchmarks/export.py [PATTERN...]        # such as resnet18, or timm:*lite*; without, all
    python benchmarks/export.py --latency RUN       # seconds and megabytes of the files of a run

Each architecture has random weights and a head of ten classes, which make of every picture nearly the same
probabilities. So what is compared is features, which differ: the largest difference to those of the network,
as a share of their standard deviation, over batches of 1, 2 and 7 pictures of different sizes, at 64 pixels
or else the size of the weights. Each has a process of its own, which is stopped after --minutes.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from families import smallest_members

from finetune.errors import ConfigError
from finetune.model import ModelSpec, build_classifier, find_architecture
from finetune.model.architecture import TIMM
from finetune.model.backbone import check_size
from finetune.model.catalogue import architectures
from finetune.model.deployed import FEATURES, IMAGES, DeployedClassifier
from finetune.model.onnx_export import write_onnx

BATCHES = ((1, 90, 70), (2, 64, 101), (7, 65, 64))
SMALL = 64


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("patterns", nargs="*")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--latency", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(" | ".join(row(options.worker)))
    elif options.latency:
        show_latency(options.latency)
    else:
        print("| architecture | size | seconds | MB | batches of 1, 2, 7 |\n|---|---|---|---|---|")
        for name in chosen(options.patterns):
            print(f"| {name} | {in_process(name, 60 * options.minutes)} |", flush=True)


def chosen(patterns: list[str]) -> Iterator[str]:
    """Yield the names of architectures that match, or all of torchvision's and one of each timm family."""
    for pattern in patterns:
        yield from (found.name for found in architectures(pattern))
    if not patterns:
        yield from (found.name for found in architectures())
        yield from (f"{TIMM}{name}" for _, name in smallest_members())


def in_process(name: str, seconds: float) -> str:
    """Return the cells about an architecture, or what kept it from being exported."""
    command = [sys.executable, __file__, "--worker", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"– | – | – | stopped after {seconds / 60:g} minutes"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode == 0:
        return lines[-1]
    reason = next((line for line in reversed(lines) if "Error: " in line), "no reason")
    reason = reason.rpartition("Error: ")[2].rpartition(" as ONNX: ")[2][:120]
    return f"– | – | – | not exported: {reason.replace('|', '/')}"


def row(name: str) -> list[str]:
    """Export an architecture, compare, and return its cells."""
    import onnxruntime

    torch.manual_seed(0)
    arch = find_architecture(name)
    try:
        check_size(arch, SMALL)
        size = SMALL
    except ConfigError:
        size = arch.image_size
    model = build_classifier(ModelSpec(name, 10, image_size=size), weights="none", seed=0).eval()
    program = DeployedClassifier(model, several=False, temperature=1.0, features=True).eval()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(program, path, columns={}, properties={}, features=True)
        seconds, bytes_written = time.perf_counter() - began, path.stat().st_size
        session = onnxruntime.InferenceSession(str(path))
    largest = 0.0
    for images in BATCHES:
        pixels = torch.randint(0, 256, (*images, 3), dtype=torch.uint8)
        with torch.inference_mode():
            expected = program(pixels)[1]
        (found,) = session.run([FEATURES], {IMAGES: pixels.numpy()})
        difference = (torch.from_numpy(found) - expected).abs().max() / expected.std()
        largest = max(largest, float(difference))
    return [str(size), f"{seconds:.1f}", f"{bytes_written / 1e6:.1f}", f"{largest:.1g}"]


def show_latency(run: Path) -> None:
    """Print what an image takes by each file of a run, in batches of one, and what the runtimes weigh."""
    import onnxruntime

    from finetune.commands.export.export import ExportOptions, export
    from finetune.commands.export.pictures import pictures_to_try
    from finetune.commands.export.program import in_float32, inputs_of, program_of
    from finetune.display import Display
    from finetune.runs.trained_model import load_trained

    torch.set_num_threads(1)
    trained = in_float32(load_trained(run, torch.device("cpu")))
    inputs = [inputs_of(trained, [picture]) for picture in pictures_to_try(trained)]
    program = program_of(trained, features=False)

    def eager(one: dict[str, object]) -> None:
        with torch.inference_mode():
            program(*(torch.from_numpy(value) for value in one.values()))

    runners = {"PyTorch, the same program": eager}
    sizes = {"PyTorch, the same program": "–"}
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("float32", "float16", "int8"):
            path = Path(folder) / f"{precision}.onnx"
            try:
                options = ExportOptions("onnx", path, precision, most_loss=100)
                export(run, options, Display(sys.stderr, quiet=True))
            except Exception as error:
                print(f"{precision}: {error}")
                continue
            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(str(path), sess_options=settings)
            runners[f"ONNX, {precision}"] = lambda one, session=session: session.run(None, one)
            sizes[f"ONNX, {precision}"] = f"{path.stat().st_size / 1e6:.1f} MB"
        seconds = {name: [] for name in runners}
        for _ in range(5):
            for name, runner in runners.items():
                began = time.perf_counter()
                for one in inputs:
                    runner(one)
                seconds[name].append((time.perf_counter() - began) / len(inputs))
        base = min(seconds["PyTorch, the same program"])
        print("| | an image | beside PyTorch | file |\n|---|---|---|---|")
        for name, times in seconds.items():
            print(f"| {name} | {1000 * min(times):.1f} ms | {min(times) / base:.2f} | {sizes[name]} |")
        show_start(run, Path(folder) / "float32.onnx")


def show_start(run: Path, file: Path) -> None:
    """Print the seconds from a new Python to a model that can answer, the least of five that take turns."""
    programs = {
        "onnxruntime and the file": f"import onnxruntime; onnxruntime.InferenceSession({str(file)!r})",
        "PyTorch": "import torch",
        "finetune.load": f"import finetune; finetune.load({str(run)!r}).module",
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(5):
        for name, text in programs.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", text], check=True)
            seconds[name].append(time.perf_counter() - began)
    print("\n| start | |\n|---|---|")
    for name, times in seconds.items():
        print(f"| {name} | {min(times):.2f} s |")


if __name__ == "__main__":
    main()
