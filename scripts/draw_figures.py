"""Draw the figures of docs/explanations.md from what the code does: `python scripts/draw_figures.py`."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")

import numpy as np
from matplotlib import pyplot as plt

from finetune.config.config import Config, StageConfig
from finetune.model import ModelSpec, build_classifier
from finetune.optim.learning_rates import spread
from finetune.optim.schedule import OneCycle

DOCS = Path(__file__).parents[1] / "docs"
GROUPS = ("early backbone", "late backbone", "head")
COLOURS = ("#8da0cb", "#3f6fb5", "#d95f02")
ARCHITECTURES = ("resnet34", "efficientnet_b0", "convnext_tiny", "vit_b_16")


def draw_schedule(folder: Path) -> None:
    """Draw the rate of each layer group over the stages that a config has if it names none."""
    config = Config.model_validate({"data": {"path": "photos"}})
    cycle = OneCycle(config.one_cycle.pct_start, config.one_cycle.div, config.one_cycle.div_final, None)
    figure, axes = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
    where, first = np.linspace(0, 1, 400), 0
    for stage in config.stages:
        for peak, colour in zip(peaks_of(stage, config), COLOURS, strict=True):
            if peak is not None:
                rates = [cycle.rate(float(part), peak) for part in where]
                axes.plot(first + where * stage.epochs, rates, color=colour)
        first += stage.epochs
        axes.axvline(first, color="grey", linewidth=0.8, linestyle=":")
    axes.set(yscale="log", ylim=(1e-7, 5e-3), xlim=(0, first), xlabel="epoch", ylabel="learning rate")
    for name, colour in zip(GROUPS, COLOURS, strict=True):
        axes.plot([], [], color=colour, label=name)
    figure.legend(loc="outside lower center", frameon=False, ncols=3)
    title = "; ".join(f"{stage.name}: {stage.train} at {stage.lr}" for stage in config.stages)
    axes.set_title(title, fontsize=10)
    figure.savefig(folder / "schedule.png", dpi=150, metadata={"Software": None})
    plt.close(figure)


def peaks_of(stage: StageConfig, config: Config) -> list[float | None]:
    """Return the peak rate of each layer group; None of one that is frozen."""
    if stage.train == "head":
        return [None, None, stage.lr.last]
    return list(spread(stage.lr, len(GROUPS), divisor=config.slice.divisor, spacing=config.slice.spacing))


def draw_groups(folder: Path) -> None:
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
    figure.savefig(folder / "groups.png", dpi=150, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    draw_schedule(DOCS)
    draw_groups(DOCS)
