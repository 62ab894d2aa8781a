"""Measure a training step against plain fastai and against its own parts, and the memory of freezing.

    python benchmarks/steps.py                    # resnet18, and resnet50's memory; minutes on two cores
    python benchmarks/steps.py --arch resnet50 --rounds 9

The two sides of a comparison take their steps in turn, on one batch, each in a process of its own, set up as
its users would have it. What is printed is the median of the rounds' ratios and their quartiles, because a
machine's speed is noisy. Memory is by how much the steps raise the process's peak.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from finetune.machine.device import choose_precision, describe, keep_large_buffers
from finetune.model import HeadSpec, ImageClassifier, ModelSpec, build_classifier
from finetune.optim.build import build_optimizer
from finetune.optim.learning_rates import parse_lr
from finetune.optim.param_groups import RateRule, optimizer_groups, plan_stage

Step = Callable[[], None]
CLASSES = 10
PRODUCTS = tuple(
    f"aten::{name}"
    for name in ("mkldnn_convolution", "convolution_backward", "mm", "addmm", "bmm", "baddbmm_")
)
"""what torch calls convolutions and products of matrices on a CPU"""


class Setting(NamedTuple):
    """What the compared steps have in common."""

    arch: str
    size: int
    batch: int


RULE = RateRule(divisor=3.0, spacing="geometric", weight_decay=0.01, decay_bias_and_norm=False)


def our_model(arch: str, size: int) -> ImageClassifier:
    """Build the model as `finetune train` does, without pretrained weights."""
    spec = ModelSpec(arch, CLASSES, head=HeadSpec(), image_size=size)
    return build_classifier(spec, weights="none", seed=0)


def our_step(model: ImageClassifier, trainable: int, images: torch.Tensor, targets: torch.Tensor) -> Step:
    """Return one training step of ours: forward, loss, backward, optimizer."""
    model.freeze(trainable)
    model.train()
    plans = plan_stage(
        model.layer_groups, trainable=trainable, batch_norm="auto", lr=parse_lr(1e-3), rule=RULE
    )
    optimizer = build_optimizer(optimizer_groups(plans), name="adam", decay="decoupled")
    loss = nn.CrossEntropyLoss()

    def step() -> None:
        loss(model(images), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def forward_and_head(model: ImageClassifier, images: torch.Tensor, targets: torch.Tensor) -> Step:
    """Return the least that a frozen step can be: the backbone's forward pass, and a step of the head."""
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=1e-3, fused=True)
    loss = nn.CrossEntropyLoss()

    def step() -> None:
        model.backbone.eval()
        with torch.no_grad():
            scaled = (images.float() / 255 - model.mean) / model.std
            features = model.backbone(scaled.contiguous(memory_format=torch.channels_last))
        loss(model.head(features), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def fastai_step(arch: str, *, frozen: bool, images: torch.Tensor, targets: torch.Tensor) -> Step:
    """Return one step of fastai's own `vision_learner`, as its users call it, run by its own Learner."""
    import torchvision
    from fastai.data.core import DataLoaders
    from fastai.metrics import accuracy
    from fastai.vision.learner import vision_learner
    from torch.utils.data import DataLoader, TensorDataset

    normalised = images.float() / 255
    loader = DataLoader(TensorDataset(normalised, targets), batch_size=len(images))
    loaders = DataLoaders(loader, loader, device=torch.device("cpu"))
    learner = vision_learner(
        loaders,
        getattr(torchvision.models, arch),
        n_out=CLASSES,
        pretrained=False,
        normalize=False,
        loss_func=nn.CrossEntropyLoss(),
        metrics=accuracy,
    )
    if frozen:
        learner.freeze()
    else:
        learner.unfreeze()
    learner.create_opt()
    if frozen:
        learner.freeze()
    learner.model.train()
    learner.training = True
    learner.opt.set_hypers(lr=1e-3)
    loss = nn.CrossEntropyLoss()

    def step() -> None:
        loss(learner.model(normalised), targets).backward()
        learner.opt.step()
        learner.opt.zero_grad()

    return step


class Worker:
    """A process that takes one step whenever it is told to."""

    def __init__(self, case: str, setting: Setting) -> None:
        command = [sys.executable, "-W", "ignore", __file__, "--case", case, "--arch", setting.arch]
        command += ["--size", str(setting.size), "--batch", str(setting.batch)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.step()  # the first one allocates and compiles

    def step(self) -> float:
        """Take one step; give its seconds."""
        return self._ask("step")

    def share(self) -> float:
        """Take some steps; give the part of their time that convolutions and products of matrices took."""
        return self._ask("share")

    def stop(self) -> float:
        """End the process; give the MiB by which its steps raised its peak memory."""
        peak = self._ask("peak")
        self._process.communicate()
        return peak

    def _ask(self, what: str) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


def serve(case: str, setting: Setting) -> None:
    """Be a worker: read what to do from stdin, answer with numbers on stdout."""
    arch, size, batch = setting
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    targets = torch.randint(0, CLASSES, (batch,))
    trainable = 1 if case.split()[-1] == "frozen" else 3
    if case.startswith("fastai"):
        step = fastai_step(arch, frozen=trainable == 1, images=images, targets=targets)
    else:
        keep_large_buffers()
        model = our_model(arch, size)
        if "auto" in case:
            model.set_precision(choose_precision("auto", torch.device("cpu")))
        if case.startswith("parts"):
            step = forward_and_head(model, images, targets)
        else:
            step = our_step(model, trainable, images, targets)
    before = _memory("VmRSS")
    for line in sys.stdin:
        if line.strip() == "peak":
            print(_memory("VmHWM") - before, flush=True)
            return
        if line.strip() == "share":
            print(_products(step), flush=True)
            continue
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)


def _products(step: Step) -> float:
    """Return what part of the time of three steps convolutions and products of matrices took, 0–1."""
    with torch.profiler.profile() as profile:
        for _ in range(3):
            step()
    spent = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    share: float = sum(spent.get(name, 0) for name in PRODUCTS) / sum(spent.values())
    return share


def _memory(key: str) -> float:
    """Read one of the kernel's counts of this process's memory, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def compare(slow: str, fast: str, setting: Setting, rounds: int) -> str:
    """Take steps of two cases in turn; give the median of slow/fast over the rounds, with its quartiles."""
    pair = [Worker(case, setting) for case in (slow, fast)]
    ratios = []
    for _ in range(rounds):
        first, second = (worker.step() for worker in pair)
        ratios.append(first / second)
    for worker in pair:
        worker.stop()
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} – {high:.2f})"


def print_times(setting: Setting, rounds: int) -> None:
    """Print the ratios of one architecture."""
    auto = f"precision auto ({choose_precision('auto', torch.device('cpu'))})"
    print(
        f"{setting.arch}, batch {setting.batch} at {setting.size} px, ratios of seconds per step:", flush=True
    )
    for label, slow, fast in (
        ("frozen, float32: ours / (backbone forward + head)", "ours frozen", "parts frozen"),
        ("frozen, float32: fastai / ours", "fastai frozen", "ours frozen"),
        (f"frozen, {auto}: fastai / ours", "fastai frozen", "ours auto frozen"),
        ("unfrozen, float32: fastai / ours", "fastai unfrozen", "ours unfrozen"),
        (f"unfrozen, {auto}: fastai / ours", "fastai unfrozen", "ours auto unfrozen"),
    ):
        print(f"  {label:<54} {compare(slow, fast, setting, rounds)}", flush=True)


def print_convolutions(setting: Setting) -> None:
    """Print what part of an unfrozen step of ours torch spends in convolutions and matrix products."""
    worker = Worker("ours unfrozen", setting)
    share = worker.share()
    worker.stop()
    print(f"  {'unfrozen, float32: convolutions and products in a step':<54} {share:.0%}", flush=True)


def print_memory(setting: Setting) -> None:
    """Print by how much frozen and unfrozen steps raise the peak memory of a process."""
    peaks = {}
    for case in ("ours frozen", "ours unfrozen"):
        worker = Worker(case, setting)
        worker.step()
        peaks[case] = worker.stop()
    frozen, unfrozen = peaks.values()
    print(
        f"{setting.arch}, batch {setting.batch} at {setting.size} px, peak memory of steps: "
        f"frozen {frozen:.0f} MiB, unfrozen {unfrozen:.0f} MiB, ratio {frozen / unfrozen:.0%}"
    )


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    setting = Setting(arguments.arch, arguments.size, arguments.batch)
    if arguments.case:
        serve(arguments.case, setting)
        return
    print(f"torch {torch.__version__}, {describe(torch.device('cpu'))}")
    print_times(setting, arguments.rounds)
    print_convolutions(setting)
    print_memory(setting._replace(arch="resnet50"))


main()
