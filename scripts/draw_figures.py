"""Draw the figures of docs/explanations.md: `python scripts/draw_figures.py`."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")

import numpy as np
from matplotlib import pyplot as plt

from finetune.model import ModelSpec, build_classifier
from finetune.optim.schedule import OneCycle

DOCS = Path(__file__).parents[1] / "docs"
GROUPS = ("early backbone", "late backbone", "head")
COLOURS = ("#8da0cb", "#3f6fb5", "#d95f02")
ARCHITECTURES = ("resnet34", "efficientnet_b0", "convnext_tiny", "vit_b_16")


def draw_schedule() -> None:
    """Draw the rate of each layer group over the default stages: 1 epoch frozen, 4 unfrozen."""
    cycle, figure, axes = OneCycle(), *plt.subplots(figsize=(7.2, 3.2), layout="constrained")
    where = np.linspace(0, 1, 400)
    stages = (((0, 1), (None, None, 2e-3)), ((1, 5), (1e-5, 1e-4, 1e-3)))
    for (first, last), peaks in stages:
        for peak, colour in zip(peaks, COLOURS, strict=True):
            if peak is not None:
                rates = [cycle.rate(float(part), peak) for part in where]
                axes.plot(first + where * (last - first), rates, color=colour)
    axes.axvline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.set(yscale="log", ylim=(1e-7, 5e-3), xlim=(0, 5), xlabel="epoch", ylabel="learning rate")
    for name, colour in zip(GROUPS, COLOURS, strict=True):
        axes.plot([], [], color=colour, label=name)
    axes.legend(loc="lower center", frameon=False, ncols=3)
    axes.set_title("frozen: the head alone; unfrozen: slice(1e-5, 1e-3)", fontsize=10)
    figure.savefig(DOCS / "schedule.png", dpi=150, metadata={"Software": None})


def draw_groups() -> None:
    """Draw how the parameters of some networks are shared out among three layer groups."""
    figure, axes = plt.subplots(figsize=(7.2, 2.4), layout="constrained")
    for row, arch in enumerate(reversed(ARCHITECTURES)):
        model = build_classifier(ModelSpec(arch=arch, classes=10), weights="none", seed=0)
        sizes = [sum(parameter.numel() for parameter in group.parameters()) for group in model.layer_groups]
        left = 0.0
        for size, colour in zip(sizes, COLOURS, strict=True):
            share = size / sum(sizes)
            axes.barh(row, share, left=left, color=colour)
            if share > 0.06:
                axes.text(
                    left + share / 2, row, f"{size / 1e6:.1f} M", ha="center", va="center", color="white"
                )
            left += share
    axes.set(yticks=range(len(ARCHITECTURES)), xlim=(0, 1), xlabel="share of the parameters")
    axes.set_yticklabels(reversed(ARCHITECTURES))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / "groups.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    draw_schedule()
    draw_groups()
