"""Measure layers that train otherwise than torch's own on a CPU, beside these.

    python benchmarks/layers.py [--rounds 9] [--batch 32]

The layers are those of ConvNeXt tiny, EfficientNet-B0, ResNet and VGG at 224 px. The two sides take their
passes in turn: forward and backward, with the gradients of images, weights and bias. What is printed is the
median of the rounds' ratios, ours / torch's, in float32 and in bfloat16; below 1 ours is quicker.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from finetune.machine.device import describe, keep_large_buffers
from finetune.model.convolutions import QuickConvolutions
from finetune.model.linear import hasten_linear_layers

LINEAR = ((56, 96, 384), (56, 384, 96), (28, 192, 768), (14, 384, 1536), (14, 1536, 384), (7, 768, 3072))
"""Sides of the map, inputs and outputs of linear layers."""
DEPTHWISE = (
    (56, 96, 7, 1),
    (28, 192, 7, 1),
    (14, 384, 7, 1),
    (7, 768, 7, 1),
    (28, 240, 5, 1),
    (14, 480, 5, 1),
    (56, 144, 5, 2),
    (112, 32, 3, 1),
    (112, 96, 3, 2),
)
"""Side of the map, channels, side of the filters and stride of depthwise convolutions."""
SQUARE = ((28, 128), (14, 256), (7, 512), (112, 128), (56, 256), (28, 512), (14, 512))
"""Side of the map and channels of convolutions of 3 × 3; the first three are ResNet's, the others VGG's."""

Pass = Callable[[], None]


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    keep_large_buffers()
    print(f"torch {torch.__version__}, {describe(torch.device('cpu'))}\n")
    print("| layer | float32 | bfloat16 |\n|---|---|---|")
    for side, inputs, outputs in LINEAR:
        images = torch.randn(options.batch, side, side, inputs)
        theirs, ours = nn.Linear(inputs, outputs), nn.Sequential(nn.Linear(inputs, outputs))
        hasten_linear_layers(ours)
        print_ratios(
            f"linear, {inputs} → {outputs} on {side} × {side}", images, (ours, theirs), options.rounds
        )
    for side, channels, kernel, stride in DEPTHWISE:
        images = maps(options.batch, channels, side)
        layer = nn.Conv2d(channels, channels, kernel, stride, padding=kernel // 2, groups=channels)
        name = f"depthwise, {kernel} × {kernel}, stride {stride}, {channels} channels on {side} × {side}"
        print_ratios(name, images, (layer, layer), options.rounds)
    for side, channels in SQUARE:
        images = maps(options.batch, channels, side)
        layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
        print_ratios(f"3 × 3, {channels} channels on {side} × {side}", images, (layer, layer), options.rounds)


def maps(batch: int, channels: int, side: int) -> Tensor:
    """Return random numbers, laid out as layers hand them on."""
    return torch.randn(batch, channels, side, side).contiguous(memory_format=torch.channels_last)


def print_ratios(name: str, images: Tensor, layers: tuple[nn.Module, nn.Module], rounds: int) -> None:
    """Print the line of a layer: ours first, then torch's."""
    cells = []
    for in_bfloat16 in (False, True):
        ours, theirs = (
            one_pass(layer, images, in_bfloat16=in_bfloat16, quick=quick)
            for layer, quick in zip(layers, (True, False), strict=True)
        )
        ratios = [seconds(ours) / seconds(theirs) for _ in range(rounds + 1)]
        cells.append(f"{statistics.median(ratios[1:]):.2f}")  # the first allocates
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def one_pass(layer: nn.Module, images: Tensor, *, in_bfloat16: bool, quick: bool) -> Pass:
    """Return a pass through a layer and back, of images as the layer before would hand them on."""
    form = torch.bfloat16 if in_bfloat16 else torch.float32
    given = images.to(form).requires_grad_()

    def step() -> None:
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16),
            QuickConvolutions() if quick else nullcontext(),
        ):
            output = layer(given)
        output.backward(torch.ones_like(output))
        given.grad = None
        layer.zero_grad()

    return step


def seconds(step: Pass) -> float:
    """Return how long a pass takes."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
