"""Measure training on a GPU beside synthetic ceilings and fastai, in phases, one JSON line after each.

    python benchmarks/gpu.py                        # at most about 10 minutes
    python benchmarks/gpu.py --device cpu --small   # the same phases on a CPU, small: shows that they start
    python benchmarks/gpu.py --only loop fastai

Each phase has a deadline: what of it has not begun by then is left out, and said to be. A ceiling is a bare
loop on one batch that lies on the device; the loop is ours on the same batch, with all that it records; a
training is `finetune train` on JPEGs that are drawn first. Rates are images per second, the better of two
passes, because another program can only make one slower. Lines of one run can be compared with each other,
not with those of another machine.
"""

import argparse
import csv
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from one_batch import OneBatch
from photos import draw_photo
from torch import nn
from torchvision.transforms.v2 import functional

from finetune.choices import Augment, Precision
from finetune.commands.settings import RunOptions
from finetune.commands.train.train import train
from finetune.config.load import parse_config
from finetune.data.loading.draws import DrawnBatch, DrawTransform, device_transform, pack
from finetune.data.loading.transforms import Transform, train_transform
from finetune.data.loading.workers import one_thread
from finetune.display import Display
from finetune.machine.device import describe, describe_arithmetic, peak_memory, set_arithmetic
from finetune.model import HeadSpec, ImageClassifier, ModelSpec, build_classifier
from finetune.model.preprocessing import Preprocessing
from finetune.optim.build import build_optimizer
from finetune.optim.learning_rates import parse_lr
from finetune.optim.param_groups import RateRule, optimizer_groups, plan_stage
from finetune.optim.schedule import OneCycle
from finetune.runs.checkpoint_writer import HostCopy
from finetune.runs.checksummed import dump_checksummed
from finetune.training.events import START, Hooks, Loaders
from finetune.training.loop import fit_one_cycle
from finetune.training.state import training_tensors
from finetune.training.step import StepOptions, TrainingStep

CLASSES = 10
RULE = RateRule(divisor=3.0, spacing="geometric", weight_decay=0.01, decay_bias_and_norm=False)
SILENT = Hooks(step=lambda step: None, epoch=lambda epoch: None, val_batch=lambda done, total: None)
CONFIG = """
device: {device}
precision: {precision}
deterministic: {deterministic}
data: {{path: "{path}", image_size: {size}, batch_size: {batch}}}
model: {{arch: {arch}, weights: none}}
stages:
  - {{name: frozen, train: head, epochs: 1, lr: 3e-3, features: live}}
  - {{name: unfrozen, train: all, epochs: 2, lr: 1e-3}}
"""


class Scale(NamedTuple):
    """How much is measured."""

    archs: tuple[str, ...]
    batches: tuple[int, ...]
    size: int
    steps: int
    """of a pass"""
    images: int
    """JPEGs that are drawn"""


LARGE = Scale(("resnet18", "resnet50"), (64, 256), 224, 30, 10_000)
SMALL = Scale(("resnet18",), (4,), 32, 2, 24)
ARITHMETIC: dict[str, Precision] = {"bfloat16": "bfloat16", "tf32": "float32", "float32": "float32"}


class Case(NamedTuple):
    """One training step that is measured."""

    arch: str
    batch: int
    frozen: bool
    arithmetic: str
    deterministic: bool = True
    compiled: bool = False

    def named(self) -> dict[str, Any]:
        """Return what tells it from others, as a line of the output has it."""
        return self._asdict()


def one_batch(case: Case, scale: Scale, device: torch.device) -> OneBatch:
    """Return random images of a case on the device, for a pass."""
    images = torch.randint(0, 256, (case.batch, 3, scale.size, scale.size), dtype=torch.uint8)
    return OneBatch(images.to(device), (torch.arange(case.batch) % CLASSES).to(device), scale.steps)


def build(case: Case, scale: Scale, device: torch.device) -> tuple[ImageClassifier, TrainingStep]:
    """Build model and step as a training does."""
    precision = ARITHMETIC[case.arithmetic]
    spec = ModelSpec(case.arch, CLASSES, head=HeadSpec(), image_size=scale.size)
    model = build_classifier(spec, weights="none", seed=0).to(device)
    model.set_precision(precision)
    set_arithmetic(device, precision, deterministic=case.deterministic)
    if case.arithmetic == "tf32" and device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.cudnn.conv.fp32_precision = "tf32"  # type: ignore[attr-defined]
    trainable = 1 if case.frozen else len(model.layer_groups)
    model.freeze(trainable)
    plans = plan_stage(
        model.layer_groups, trainable=trainable, batch_norm="auto", lr=parse_lr(1e-3), rule=RULE
    )
    optimizer = build_optimizer(optimizer_groups(plans), name="adam", decay="decoupled")
    options = StepOptions(compiled=case.compiled)
    return model, TrainingStep(model, optimizer, loss=nn.CrossEntropyLoss(), seed=0, stage=0, options=options)


def finish(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(run: Callable[[], object], images: int, device: torch.device) -> float:
    """Return images per second of the better of two passes, after one that is not counted."""
    run()
    best = float("inf")
    for _ in range(2):
        finish(device)
        began = time.perf_counter()
        run()
        finish(device)
        best = min(best, time.perf_counter() - began)
    return round(images / best, 1)


def bare_rate(case: Case, scale: Scale, device: torch.device, *, validates: bool = False) -> float:
    """Return the rate of the same step without anything around it, but perhaps a validation of one batch."""
    model, step = build(case, scale, device)
    batches = one_batch(case, scale, device)

    def run() -> None:
        for images, targets in batches:
            step.loss(model(images), targets).backward()
            step.optimizer.step()
            step.optimizer.zero_grad()
        if validates:
            with torch.no_grad():
                model.eval()(batches.images)
            model.train()

    return rate(run, case.batch * scale.steps, device)


def loop_rate(case: Case, scale: Scale, device: torch.device) -> float:
    """Return the rate of our whole loop: seeds, norms, schedule, checks, and one validation of one batch."""
    _, step = build(case, scale, device)
    batches = one_batch(case, scale, device)
    loaders: Any = Loaders(batches, list(batches)[:1], device)  # type: ignore[arg-type]

    def run() -> None:
        fit_one_cycle(step, loaders, epochs=1, cycle=OneCycle(), hooks=SILENT, reached=START)

    return rate(run, case.batch * scale.steps, device)


def fastai_rate(case: Case, scale: Scale, device: torch.device) -> float:
    """Return the rate of fastai's `vision_learner` on the same batch, as its users call it."""
    import torchvision
    from fastai.callback import progress  # noqa: F401  (it adds no_bar and no_logging to learners)
    from fastai.data.core import DataLoaders
    from fastai.vision.learner import vision_learner

    batches = one_batch(case, scale, device)
    shown = [(batches.images.float() / 255, batches.targets)] * scale.steps
    loaders = DataLoaders(shown, shown[:1], device=device)
    learner = vision_learner(
        loaders,
        getattr(torchvision.models, case.arch),
        n_out=CLASSES,
        pretrained=False,
        normalize=False,
        loss_func=nn.CrossEntropyLoss(),
    )
    learner.model.to(device)
    if case.arithmetic == "bfloat16" and device.type == "cuda":
        learner = learner.to_bf16()
    if case.frozen:
        learner.freeze()
    else:
        learner.unfreeze()

    def run() -> None:
        with learner.no_bar(), learner.no_logging():
            learner.fit(1, 1e-3)

    return rate(run, case.batch * scale.steps, device)


Line = dict[str, Any]


def ceilings(scale: Scale, device: torch.device, folder: Path) -> Iterator[Line]:
    """Measure bare steps of every shape and arithmetic."""
    for arch, batch, frozen, arithmetic in product(scale.archs, scale.batches, (False, True), ARITHMETIC):
        case = Case(arch, batch, frozen, arithmetic)
        yield {**case.named(), "images_per_second": bare_rate(case, scale, device)}


def loop(scale: Scale, device: torch.device, folder: Path) -> Iterator[Line]:
    """Measure our loop and a bare one in turn; 95 % of the ceiling is the aim."""
    for arch, batch, frozen in product(scale.archs, scale.batches, (False, True)):
        case = Case(arch, batch, frozen, "bfloat16")
        ours = loop_rate(case, scale, device)
        share = ours / bare_rate(case, scale, device, validates=True)
        yield {**case.named(), "images_per_second": ours, "share": round(share, 3), "passed": share >= 0.95}


def fastai(scale: Scale, device: torch.device, folder: Path) -> Iterator[Line]:
    """Measure fastai's loop beside ours."""
    for arch, frozen in product(scale.archs, (False, True)):
        case = Case(arch, scale.batches[0], frozen, "bfloat16")
        ours, theirs = loop_rate(case, scale, device), fastai_rate(case, scale, device)
        yield {**case.named(), "fastai_images_per_second": theirs, "ratio": round(ours / theirs, 3)}


def determinism(scale: Scale, device: torch.device, folder: Path) -> Iterator[Line]:
    """Measure what the same bits in every run cost."""
    for arch in scale.archs:
        case = Case(arch, scale.batches[-1], False, "bfloat16")
        same, free = (bare_rate(case._replace(deterministic=one), scale, device) for one in (True, False))
        yield {**case.named(), "share_of_free": round(same / free, 3)}


def compilation(scale: Scale, device: torch.device, folder: Path) -> Iterator[Line]:
    """Measure our loop compiled and not, and how long the first pass takes, in which the compiler works."""
    for arch, batch in product(scale.archs, scale.batches):
        case = Case(arch, batch, False, "bfloat16" if device.type == "cuda" else "float32", compiled=True)
        began = time.perf_counter()
        compiled = loop_rate(case, scale, device)
        seconds = time.perf_counter() - began - 2 * batch * scale.steps / compiled
        ratio = compiled / loop_rate(case._replace(compiled=False), scale, device)
        yield {**case.named(), "first_pass_seconds": round(seconds, 1), "gain": round(ratio, 3)}


def checkpoint(scale: Scale, device: torch.device, folder: Path) -> Iterator[Line]:
    """Measure how long the copy for a checkpoint stops a training, and how long its thread works."""
    for arch in scale.archs:
        model, step = build(Case(arch, 4, False, "float32"), scale, device)
        images = torch.zeros(4, 3, scale.size, scale.size, dtype=torch.uint8, device=device)
        targets = torch.arange(4, device=device)
        step([images], targets, epoch=0, batch=0, rates=step.group_rates, momentum=None)
        tensors = training_tensors(model, step.optimizer)
        copy = HostCopy()
        copy.of(tensors)  # the first one takes the memory
        finish(device)
        began = time.perf_counter()
        held = copy.of(tensors)
        copied = time.perf_counter()
        content = dump_checksummed(held)
        hashed = time.perf_counter()
        (folder / "checkpoint").write_bytes(content)
        times = {"copy": copied - began, "hash": hashed - copied, "write": time.perf_counter() - hashed}
        rounded = {f"{name}_seconds": round(value, 4) for name, value in times.items()}
        yield {"arch": arch, "tensors": len(tensors), "mib": round(len(content) / 2**20, 1), **rounded}


def draw(folder: Path, images: int) -> Path:
    """Draw JPEGs in a folder for each class: a few pictures, at other qualities."""
    generator = np.random.default_rng(0)
    photos = [draw_photo(generator) for _ in range(20)]
    for number in range(images):
        path = folder / "drawn" / f"class{number % CLASSES}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photos[number * 7 % 20].save(path, quality=80 + number // 20 % 15)
    return folder / "drawn"


def whole(scale: Scale, device: torch.device, folder: Path) -> Iterator[Line]:
    """Measure `finetune train` on drawn JPEGs, from reading them to the report."""
    path = draw(folder, scale.images)
    for arch in scale.archs:
        settings = {"arch": arch, "path": path, "size": scale.size, "batch": scale.batches[0]}
        precision = "bfloat16" if device.type == "cuda" else "float32"
        text = CONFIG.format(device=device.type, precision=precision, deterministic="true", **settings)
        run, began = folder / f"run-{arch}", time.perf_counter()
        train(parse_config(text, ""), RunOptions(run), name="run", display=Display(StringIO()))
        seconds = round(time.perf_counter() - began, 1)
        with (run / "history.csv").open() as file:
            rates = [float(row["images_per_second"]) for row in csv.DictReader(file)]
        peak = (peak_memory(device) or 0) >> 20
        yield {"arch": arch, "seconds": seconds, "images_per_second": rates, "peak_mib": peak}


def augmentation(scale: Scale, device: torch.device, folder: Path) -> Iterator[Line]:
    """Measure how fast images are varied by one core, only collected by it, and varied on the device."""
    preprocessing = Preprocessing(scale.size, scale.size * 8 // 7, (0.5,) * 3, (0.25,) * 3, "bilinear")
    generator, images = np.random.default_rng(0), max(scale.batches)
    photos = [functional.pil_to_tensor(draw_photo(generator)) for _ in range(min(20, images))]
    shown = [photos[number % len(photos)] for number in range(images)]
    cpu = torch.device("cpu")
    levels: tuple[Augment, ...] = ("light", "standard")
    for level in levels:
        whole, halves = train_transform(level, preprocessing), device_transform(level, preprocessing)
        assert isinstance(halves, DrawTransform)
        with one_thread():
            alone = rate(partial(_each, whole, shown), images, cpu)
            collected = rate(partial(_collect, halves, shown), images, cpu)
        batch = _collect(halves, shown).to(device, non_blocking=True)
        varied = rate(partial(halves.halves.finish, batch), images, device)
        figures = {"core": alone, "core_collects": collected, "device_varies": varied}
        yield {"level": level, **figures}


def _each(transform: Transform, images: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([transform(image) for image in images])


def _collect(transform: DrawTransform, images: list[torch.Tensor]) -> DrawnBatch:
    return pack([transform(image) for image in images])


PHASES = {
    "ceilings": (ceilings, 120),
    "loop": (loop, 90),
    "fastai": (fastai, 60),
    "determinism": (determinism, 40),
    "checkpoint": (checkpoint, 20),
    "compilation": (compilation, 60),
    "augmentation": (augmentation, 30),
    "whole": (whole, 150),
}
"""what is measured, and the seconds after which nothing more of it is begun"""


def tell(**line: Any) -> None:
    """Print a line at once: the machine may be taken away before the next."""
    print(json.dumps(line), flush=True)


def main() -> None:
    """Run the phases that the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PHASES, default=list(PHASES))
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here; --device cpu --small shows that the phases start")
    device, scale = torch.device(arguments.device), SMALL if arguments.small else LARGE
    tell(phase="machine", device=describe(device), torch=torch.__version__, bits=describe_arithmetic(device))
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only:
            measure, seconds = PHASES[name]
            until = time.monotonic() + seconds
            for line in measure(scale, device, Path(folder)):
                tell(phase=name, **line)
                if time.monotonic() > until:
                    tell(phase=name, left_out="the rest: its time is up")
                    break


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
