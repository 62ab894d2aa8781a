"""Which labels cleanlab calls wrong, from the answers of classifiers that have not seen the image.

It is confident learning (Northcutt et al., 2021): an image is flagged where another class than its own
reaches the confidence that images of that class have on average.
"""

import importlib.util

import torch
from torch import Tensor

from finetune.errors import ConfigError

INSTALL = "pip install 'finetune-vision[labels]'"


def require_cleanlab() -> None:
    """Make sure that cleanlab is there, before the work that it is to judge.

    Raises:
        ConfigError: it is not installed.
    """
    if importlib.util.find_spec("cleanlab") is None:
        raise ConfigError(f"finetune labels needs cleanlab, which flags wrong labels.\nInstall it: {INSTALL}")


def flag_labels(probabilities: Tensor, targets: Tensor, *, several: bool) -> Tensor:
    """Tell which images have a wrong label (N,), or one that is missing or too many.

    Args:
        probabilities: (N, C) of classifiers that have not seen the image.
        targets: (N, C), 0 and 1: one 1 in each row, or several.
        several: whether an image may have several classes, or none: each class is a problem of its own.
    """
    if not several:
        return _issues(targets.argmax(1), probabilities)
    flagged = torch.zeros(len(targets), dtype=torch.bool)
    for target, probability in zip(targets.long().T, probabilities.T, strict=True):
        if 0 < int(target.sum()) < len(target):
            flagged |= _issues(target, torch.stack((1 - probability, probability), dim=1))
    return flagged


def confident_doubts(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Tell which labels are doubtful (N,), by the rule of confident learning; quick, without cleanlab.

    A label is doubtful where the most probable of the classes that reach their threshold is another one. The
    threshold of a class is the mean probability that its own images give it.

    Args:
        probabilities: (N, C) of a classifier that has not been trained on the images.
        targets: (N,), positions of their classes.
    """
    own = probabilities.gather(1, targets[:, None])[:, 0].double()
    classes = probabilities.shape[1]
    counts = torch.bincount(targets, minlength=classes)
    sums = torch.zeros(classes, dtype=torch.float64).index_add_(0, targets, own)
    thresholds = torch.where(counts > 0, sums / counts.clamp(min=1), torch.inf)
    reached = torch.where(probabilities.double() >= thresholds, probabilities.double(), -1.0)
    best = reached.max(dim=1)
    return (best.values >= 0) & (best.indices != targets)


def _issues(labels: Tensor, probabilities: Tensor) -> Tensor:
    from cleanlab.filter import find_label_issues

    found = find_label_issues(labels.numpy(), probabilities.numpy(), filter_by="confident_learning", n_jobs=1)
    return torch.from_numpy(found)
