"""Measure what checkpoints cost, in parts of the training time.

    python benchmarks/checkpoint_cost.py                          # resnet34 at 224 px, and the quickstart

By default there is a checkpoint after an epoch if the one before took at most 2% of the time since, at the
end of each stage, and every 10 minutes. What is timed is the whole of a save, from asking the recorder for
its state to the renamed and flushed file, in a real training; the share is that of all saves in the time of
the whole run. From the median follow how far apart saves between epochs lie at least, and the share of one
every 10 minutes.
"""

import argparse
import os
import statistics
import tempfile
import time
from io import StringIO
from pathlib import Path

from finetune.commands.settings import RunOptions
from finetune.commands.train.train import train
from finetune.config.load import load_config, parse_config
from finetune.display import Display
from finetune.runs.checkpointer import SHARE, Checkpointer
from finetune.training.events import Reached

LARGE = """
data:
  {path: "builtin:digits", images_per_class: 16, val: 0.1, image_size: 224, batch_size: 16, augment: light}
model: {arch: resnet34, weights: none}
stages:
  - {name: frozen, train: head, epochs: 3, lr: 3e-3}
  - {name: unfrozen, train: all, epochs: 2, lr: 1e-3}
"""


class Timed:
    """Times every save of a training, and the training around them."""

    def __init__(self) -> None:
        self.saves: list[tuple[str, float]] = []
        self._save = Checkpointer.save

    def __enter__(self) -> "Timed":
        def save(checkpointer: Checkpointer, reached: Reached = Reached()) -> None:  # noqa: B008
            started = time.perf_counter()
            self._save(checkpointer, reached)
            self.saves.append((checkpointer.stage_name, time.perf_counter() - started))

        Checkpointer.save = save  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Checkpointer.save = self._save  # type: ignore[method-assign]


def main() -> None:
    """Print the cost of checkpoints in two trainings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    arguments = parser.parse_args()
    configs = {
        str(arguments.config): load_config(arguments.config),
        "resnet34, 224 px": parse_config(LARGE, ""),
    }
    print(f"load {os.getloadavg()[0]:.1f}")
    print("| training | stage | a save, median | epochs | saves | of the run | gap | one in 10 min |")
    print("|---|---|---|---|---|---|---|---|")
    for name, config in configs.items():
        with tempfile.TemporaryDirectory() as folder, Timed() as timed:
            outcome = train(config, RunOptions(Path(folder, "run")), name="run", display=Display(StringIO()))
        share = sum(seconds for _, seconds in timed.saves) / outcome.seconds
        for stage in config.stages:
            of_stage = [seconds for of, seconds in timed.saves if of == stage.name]
            median = statistics.median(of_stage)
            print(
                f"| {name} | {stage.name} | {1000 * median:.0f} ms | {stage.epochs} | {len(of_stage)} "
                f"| {share:.2%} | {median / SHARE:.1f} s | {median / 600:.3%} |"
            )


if __name__ == "__main__":
    main()
