"""Measure a training step against plain fastai and against its own parts, and the memory of freezing.

    python benchmarks/steps.py                    # resnet18 and resnet50, about five minutes on two cores
    python benchmarks/steps.py --arch resnet18 --rounds 9

Everything that is compared runs in one process, in turn, round after round, on one batch. What is printed is
the median of the rounds' ratios and their quartiles, because a machine's speed is noisy.
Memory is the peak of a fresh process for each case, less what it held before its first step.
"""

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from finetune.device import choose_precision, describe, keep_large_buffers
from finetune.model import HeadSpec, ImageClassifier, ModelSpec, build_classifier
from finetune.optim import build_optimizer
from finetune.plan import RateRule, optimizer_groups, plan_stage
from finetune.rates import parse_lr

Step = Callable[[], None]
CLASSES = 10
RULE = RateRule(divisor=3.0, spacing="geometric", weight_decay=0.01, decay_bias_and_norm=False)


def our_model(arch: str, size: int, precision: str = "float32") -> ImageClassifier:
    """Build the model as `finetune train` does, without pretrained weights."""
    spec = ModelSpec(arch, CLASSES, head=HeadSpec(), image_size=size, precision=precision)
    return build_classifier(spec, weights="none", seed=0)


def our_step(model: ImageClassifier, trainable: int, images: torch.Tensor, targets: torch.Tensor) -> Step:
    """Give one training step of ours: forward, loss, backward, optimizer."""
    model.freeze(trainable)
    model.train()
    plans = plan_stage(model.layer_groups, trainable=trainable, lr=parse_lr(1e-3), rule=RULE)
    optimizer = build_optimizer(optimizer_groups(plans, RULE), name="adam", decay="decoupled")
    loss = nn.CrossEntropyLoss()

    def step() -> None:
        loss(model(images), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def forward_and_head(model: ImageClassifier, images: torch.Tensor, targets: torch.Tensor) -> Step:
    """Give the least that a frozen step can be: the backbone's forward pass, and a step of the head."""
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
    """Give one step of fastai's own `vision_learner`, as its users call it, run by its own Learner."""
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


def seconds(step: Step) -> float:
    """Time one step."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def compare(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Time the steps in turn, after one warm-up each."""
    for step in steps.values():
        step()
    timings: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            timings[name].append(seconds(step))
    return timings


def ratio(timings: dict[str, list[float]], slow: str, fast: str) -> str:
    """Write the median of slow/fast over the rounds, with its quartiles."""
    ratios = [a / b for a, b in zip(timings[slow], timings[fast], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} – {high:.2f})"


def measure_time(arch: str, size: int, batch: int, rounds: int) -> None:
    """Print the ratios of one architecture."""
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    targets = torch.randint(0, CLASSES, (batch,))
    fast = choose_precision("auto", torch.device("cpu"))
    frozen_model = our_model(arch, size)
    frozen = {
        "fastai": fastai_step(arch, frozen=True, images=images, targets=targets),
        "ours": our_step(frozen_model, 1, images, targets),
        "parts": forward_and_head(our_model(arch, size), images, targets),
        f"ours {fast}": our_step(our_model(arch, size, fast), 1, images, targets),
    }
    timings = compare(frozen, rounds)
    print(f"{arch}, batch {batch} at {size} px, frozen step {statistics.median(timings['ours']):.2f} s")
    print(f"  frozen: ours / (backbone forward + head)   {ratio(timings, 'ours', 'parts')}   target ≤ 1.10")
    print(f"  frozen: fastai / ours, float32             {ratio(timings, 'fastai', 'ours')}   target ≥ 2")
    print(f"  frozen: fastai / ours, {fast:<18}  {ratio(timings, 'fastai', f'ours {fast}')}")
    del frozen, frozen_model
    gc.collect()
    unfrozen = {
        "fastai": fastai_step(arch, frozen=False, images=images, targets=targets),
        "ours": our_step(our_model(arch, size), 3, images, targets),
        f"ours {fast}": our_step(our_model(arch, size, fast), 3, images, targets),
    }
    timings = compare(unfrozen, rounds)
    auto = ratio(timings, "fastai", f"ours {fast}")
    print(f"  unfrozen: fastai / ours, float32           {ratio(timings, 'fastai', 'ours')}   target ≥ 1.2")
    target = "   target ≥ 1.8" if fast == "bfloat16" else "   (no fast bfloat16 on this CPU)"
    print(f"  unfrozen: fastai / ours, precision auto    {auto}{target}")


def measure_memory(arch: str, size: int, batch: int) -> None:
    """Print the peak memory of a frozen step against an unfrozen one, each in a process of its own."""
    peaks = {}
    for trainable in (1, 3):
        command = [sys.executable, __file__, "--peak", json.dumps([arch, size, batch, trainable])]
        peaks[trainable] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    share = peaks[1] / peaks[3]
    print(
        f"{arch}, batch {batch} at {size} px, peak memory of steps: frozen {peaks[1]:.0f} MiB, "
        f"unfrozen {peaks[3]:.0f} MiB, ratio {share:.0%}   target ≤ 25 %"
    )


def peak_of_steps(arch: str, size: int, batch: int, trainable: int) -> float:
    """Give the MiB by which two training steps raise this process's peak memory."""
    model = our_model(arch, size)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    targets = torch.randint(0, CLASSES, (batch,))
    before = _resident_mib()
    step = our_step(model, trainable, images, targets)
    step()
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", action="append", help="may be repeated; default resnet18 and resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.peak:
        print(peak_of_steps(*json.loads(arguments.peak)))
        return
    keep_large_buffers()
    print(f"torch {torch.__version__}, {describe(torch.device('cpu'))}")
    for arch in arguments.arch or ("resnet18", "resnet50"):
        measure_time(arch, arguments.size, arguments.batch, arguments.rounds)
    measure_memory("resnet50", arguments.size, arguments.batch)


main()
