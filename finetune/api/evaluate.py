"""`finetune.evaluate`: score a run from Python."""

import os

from finetune.api.model import load
from finetune.choices import DeviceName, Split
from finetune.metrics.score import Scores


def evaluate(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    split: Split = "val",
    tta: bool = False,
    device: DeviceName = "auto",
    quiet: bool = False,
) -> Scores:
    """Score the best model of a run.

    Args:
        run: directory of the run, or a `Run`.
        data: class folders or a table to score on, matched with the model's classes by name; None for the
            images of the run itself.
        split: which of the run's own images, or of the rows of a table that has a split column.
        tta: answer by the mean over several views of each image (test-time augmentation).
        device: where to compute.
        quiet: print warnings alone.

    Raises:
        RunError: not a run, or one without a model.
        DataError: images that are missing, unreadable, or of no class that the model knows.
    """
    return load(run, device=device).evaluate(data, split=split, tta=tta, quiet=quiet)
