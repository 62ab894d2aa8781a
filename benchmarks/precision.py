"""Compare number formats for a training step of several networks: float32, bfloat16, and what `auto` chooses.

    python benchmarks/precision.py [--rounds 5] [--size 128] [--batch 16] [NETWORK...]

For each network, with random weights: the time of a step of the head under a frozen backbone, of a step of
everything, and of a forward pass for evaluation, each as a multiple of float32's, in rounds of alternating
steps (the median of the rounds). `all` computes everything in bfloat16 as torch does, `by layer` depthwise
convolutions as `QuickConvolutions` does, `auto` as the program decides. Without a processor (or GPU) that
computes in bfloat16, `auto` is float32, and the other columns say why.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from finetune.choices import Precision
from finetune.machine.device import choose_device, choose_precision
from finetune.model import ImageClassifier, ModelSpec, build_classifier, classifier
from finetune.model.convolutions import QuickConvolutions

NETWORKS = (
    "resnet18",
    "resnet50",
    "densenet121",
    "convnext_tiny",
    "efficientnet_b0",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "timm:tf_efficientnet_lite0",
)


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    formats = ("all", "by layer", "auto")
    heads = [f"{what}: {name}" for what in ("frozen", "unfrozen", "evaluation") for name in formats]
    print(f"| network | `auto` is | {' | '.join(heads)} |\n|---|---|{'---|' * len(heads)}")
    for name in options.networks:
        chosen, cells = measure(name, options.rounds, options.size, options.batch)
        print(f"| {name} | {chosen} | {' | '.join(cells)} |", flush=True)


def measure(name: str, rounds: int, size: int, batch: int) -> tuple[Precision, list[str]]:
    """Return what `auto` chooses for a network, and the ratios of times to float32's."""
    device = choose_device("auto")
    chosen = choose_precision("auto", device)
    precisions: dict[str, Precision] = {
        "float32": "float32",
        "all": "bfloat16",
        "by layer": "bfloat16",
        "auto": chosen,
    }
    models = {key: build(name, size, precision).to(device) for key, precision in precisions.items()}
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    cells = []
    for step, trainable in ((train, 1), (train, 3), (evaluate, 3)):
        for model in models.values():
            model.freeze(trainable)
        steps = {key: partial(step, model, images) for key, model in models.items()}
        steps["all"] = partial(all_in_bfloat16, steps["all"])
        steps["by layer"] = partial(by_layer, steps["by layer"])
        times = alternate(steps, rounds)
        cells += [f"{times[key] / times['float32']:.2f}" for key in ("all", "by layer", "auto")]
    return chosen, cells


def all_in_bfloat16(step: Callable[[], None]) -> None:
    """Take a step without the rule for depthwise convolutions."""
    with mock.patch.object(classifier, "QuickConvolutions", nullcontext):
        step()


def by_layer(step: Callable[[], None]) -> None:
    """Take a step with the rule, also where it does not hold."""
    with QuickConvolutions():
        step()


def build(name: str, size: int, precision: Precision) -> ImageClassifier:
    """Build a model with random weights."""
    return build_classifier(
        ModelSpec(name, classes=10, image_size=size, precision=precision), weights="none", seed=0
    )


def train(model: ImageClassifier, images: Tensor) -> None:
    """Take the gradient of a step."""
    model.train()
    model.zero_grad()
    model(images).sum().backward()


def evaluate(model: ImageClassifier, images: Tensor) -> None:
    """Compute the logits."""
    model.eval()
    with torch.inference_mode():
        model(images)


def alternate(steps: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each step; they take turns, after one round that does not count."""
    seconds: dict[str, list[float]] = {key: [] for key in steps}
    for _ in range(rounds + 1):
        for key, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[key].append(time.perf_counter() - began)
    return {key: statistics.median(times[1:]) for key, times in seconds.items()}


if __name__ == "__main__":
    main()
