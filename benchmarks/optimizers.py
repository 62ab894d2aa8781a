"""Measure the step of every optimizer against its nearest relative in torch, over a network's parameters.

    python benchmarks/optimizers.py               # resnet50; a minute on two cores
    python benchmarks/optimizers.py --device cuda

All of them take their steps in turn, on tensors of the same sizes with weight decay. What is printed is the
median time of ours, and the median of the rounds' ratios of ours to torch's, with quartiles: torch's
multi-tensor path (`foreach`), which is what a formula that torch does not have can be written in, and its
fused path where there is one.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torchvision
from torch import nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop

from finetune.machine.device import describe, keep_large_buffers
from finetune.optim.build import build_optimizer
from finetune.optim.update_rules import UPDATE_RULES

LR, WEIGHT_DECAY = 1e-3, 0.01


class Relative(NamedTuple):
    """The optimizer of torch that does most nearly the same work."""

    kind: type[Optimizer]
    settings: dict[str, object]
    fused: bool
    """whether it has a fused path, on this device"""

    def build(self, parameters: list[nn.Parameter], path: str) -> Optimizer:
        """Build it with one of its two paths, `foreach` or `fused`."""
        return self.kind(parameters, lr=LR, weight_decay=WEIGHT_DECAY, **{path: True}, **self.settings)


def relatives(device: torch.device) -> dict[str, Relative]:
    """Return the relative of every optimizer of ours."""
    momentum, nesterov = {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}
    return {
        "sgd": Relative(SGD, {}, True),
        "momentum": Relative(SGD, momentum, True),
        "nesterov": Relative(SGD, nesterov, True),
        "adagrad": Relative(Adagrad, {}, device.type == "cpu"),
        "rmsprop": Relative(RMSprop, {}, False),
        "adadelta": Relative(Adadelta, {}, False),
        "adam": Relative(Adam, {}, True),
        "adamw": Relative(AdamW, {}, True),
        "nadam": Relative(NAdam, {}, False),
        "radam": Relative(RAdam, {}, False),
        "ranger": Relative(RAdam, {}, False),
        "lamb": Relative(AdamW, {}, True),
        "lion": Relative(SGD, momentum, True),
    }


def draw_parameters(shapes: list[torch.Size], device: torch.device) -> list[nn.Parameter]:
    """Draw parameters with gradients of the size they have in training."""
    parameters = [nn.Parameter(torch.randn(shape, device=device) * 0.05) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) * 1e-3
    return parameters


def contenders(name: str, shapes: list[torch.Size], device: torch.device) -> Iterator[tuple[str, Optimizer]]:
    """Return ours, then torch's by the name of its path, each with parameters of its own."""
    groups = [{"params": draw_parameters(shapes, device), "lr": LR, "weight_decay": WEIGHT_DECAY}]
    yield "ours", build_optimizer(groups, name=name, decay=UPDATE_RULES[name].decays[0])
    relative = relatives(device)[name]
    yield "foreach", relative.build(draw_parameters(shapes, device), "foreach")
    if relative.fused:
        yield "fused", relative.build(draw_parameters(shapes, device), "fused")


def take_time(optimizer: Optimizer, device: torch.device) -> float:
    """Take one step; give its seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def compare(name: str, shapes: list[torch.Size], device: torch.device, rounds: int) -> str:
    """Let ours and its relatives take steps in turn; give the row of the table."""
    optimizers = dict(contenders(name, shapes, device))
    seconds: dict[str, list[float]] = {path: [] for path in optimizers}
    for number in range(rounds + 2):
        for path, optimizer in optimizers.items():
            elapsed = take_time(optimizer, device)
            if number >= 2:  # the first steps make the state
                seconds[path].append(elapsed)
    milliseconds = 1000 * statistics.median(seconds["ours"])
    ratios = [_ratio(seconds["ours"], seconds.get(path)) for path in ("foreach", "fused")]
    kind = relatives(device)[name].kind.__name__
    return f"{name:<10}{milliseconds:>8.1f} ms   {kind:<10}{ratios[0]:<24}{ratios[1]}"


def _ratio(ours: list[float], theirs: list[float] | None) -> str:
    if theirs is None:
        return "–"
    low, middle, high = statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f} – {high:.2f})"


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    arguments = parser.parse_args()
    keep_large_buffers()
    torch.manual_seed(0)
    shapes = [parameter.shape for parameter in torchvision.models.get_model(arguments.arch).parameters()]
    total = sum(shape.numel() for shape in shapes)
    print(f"torch {torch.__version__}, {describe(arguments.device)}")
    print(f"{arguments.arch}: {total:,} parameters in {len(shapes)} tensors; ours / torch's, quartiles")
    print(f"{'':<10}{'ours':>11}   {'torch':<10}{'foreach':<24}fused")
    for name in UPDATE_RULES:
        print(compare(name, shapes, arguments.device, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
