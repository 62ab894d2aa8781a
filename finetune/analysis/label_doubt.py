"""How doubtful the label of each image is, by classifiers of features that have not seen it.

Three judges answer for every image without having been trained on it: ridge regression (leave-one-out),
logistic regression (cross-validated), and the nearest neighbours. Each ranks the images by how far their own
label falls behind the best other one; the doubt is the mean of the ranks.

Where an image may have several classes, each pair of image and class is judged, as one that should have a
1 or a 0, and the doubt of an image is that of its most doubtful class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.analysis.ridge import fit_ridge

FOLDS = 5
"""parts of the cross-validation of logistic regression; images of a class with fewer are hard to judge"""
NEIGHBOURS = 10
STRENGTHS = (1e-2, 1e-3, 1e-4)
"""inverse penalties of logistic regression to choose from, for standardised features"""

_COMPONENTS = 512
_BLOCK = 4_000_000  # similarities that are computed at once
_SMOOTHING = 0.05  # of the shares of neighbours, so that no class is impossible
_SHARPNESS = tuple(2.0 ** (half / 2) for half in range(-2, 12))

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LabelDoubt:
    """What the judges say of the labels of N images."""

    doubt: Tensor
    """(N,), float64, 0–1: the mean of three ranks, 1 the most doubtful"""
    probabilities: Tensor
    """(N, C), float64: the mean of three answers, of judges that have not seen the image"""


def judge_labels(
    features: Tensor, targets: Tensor, *, several: bool, advance: Callable[[int], object] = bool
) -> LabelDoubt:
    """Judge the label of every image by all others.

    Args:
        features: (N, D), of at least two images.
        targets: (N, C), 0 and 1: one 1 in each row, or several.
        several: whether an image may have several classes, or none.
        advance: called with 1 when a judge is done; there are three.
    """
    values, wanted = features.double().numpy(), targets.double().numpy()
    margins, answers = [], []
    judges = (_ridge, _logistic, _neighbours)
    for judge in judges:
        score, probabilities = judge(values, wanted, several)
        margins.append(_several_margins(score, wanted) if several else _margins(score, wanted))
        answers.append(probabilities)
        advance(1)
    doubt = np.mean([ranks(-margin.ravel()).reshape(margin.shape) for margin in margins], axis=0)
    if several:
        doubt = doubt.max(axis=1)
    return LabelDoubt(torch.from_numpy(doubt), torch.from_numpy(np.mean(answers, axis=0)))


def likely_targets(probabilities: Tensor, *, several: bool) -> Tensor:
    """Return the classes that images probably have (N, C), 0 and 1."""
    if several:
        return (probabilities > 0.5).float()
    return torch.nn.functional.one_hot(probabilities.argmax(1), probabilities.shape[1]).float()


def ranks(values: Array) -> Array:
    """Return the rank of each value (N,), from 0 for the lowest to 1; equal ones share their mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    middle: Array = last - (counts - 1) / 2
    return middle[group] / max(len(values) - 1, 1)


def deal_folds(labels: Sequence[int] | NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """Deal images (N,) to folds so that every class is spread evenly; the same labels, the same folds."""
    labels = np.asarray(labels)
    random = np.random.default_rng(0)
    fold = np.empty(len(labels), np.int64)
    dealt = 0
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        fold[members] = (dealt + np.arange(len(members))) % folds
        dealt += len(members)
    return fold


def _margins(scores: Array, wanted: Array) -> Array:
    """Return how far the own class of each image is ahead of the best other one (N,)."""
    own, others = (scores * wanted).sum(axis=1), np.where(wanted > 0, -np.inf, scores)
    ahead: Array = own - others.max(axis=1)
    return ahead


def _several_margins(scores: Array, wanted: Array) -> Array:
    """Return how far each answer is on the side of its target (N, C)."""
    return (2 * wanted - 1) * (2 * scores - 1)


def _ridge(values: Array, wanted: Array, several: bool) -> tuple[Array, Array]:
    """Return the left-out values of ridge regression, and the probabilities that fit them best."""
    left_out = fit_ridge(torch.from_numpy(values), torch.from_numpy(wanted)).left_out.double().numpy()
    tries = []
    for sharpness in _SHARPNESS:
        if several:
            probabilities = 1 / (1 + np.exp(-sharpness * (2 * left_out - 1)))
        else:
            powers = np.exp(sharpness * (left_out - left_out.max(axis=1, keepdims=True)))
            probabilities = powers / powers.sum(axis=1, keepdims=True)
        tries.append((_log_loss(probabilities, wanted, several), probabilities))
    return left_out, min(tries, key=lambda one: one[0])[1]


def _logistic(values: Array, wanted: Array, several: bool) -> tuple[Array, Array]:
    """Return the probabilities of cross-validated logistic regression, as scores too."""
    components = _principal_components(values)
    if not several:
        probabilities = _cross_validated(components, wanted.argmax(axis=1), wanted.shape[1])
    else:
        columns = [_cross_validated(components, column, 2)[:, 1] for column in wanted.T.astype(np.int64)]
        probabilities = np.stack(columns, axis=1)
    return probabilities, probabilities


def _cross_validated(components: Array, labels: NDArray[np.int64], classes: int) -> Array:
    """Return what each image gets from fits without its fold (N, C), of the strength that errs least."""
    fold, wanted = deal_folds(labels, FOLDS), np.eye(classes)[labels]
    tries = []
    for strength in STRENGTHS:
        probabilities = np.zeros((len(labels), classes))
        for number in range(FOLDS):
            inside = fold == number
            if inside.any():
                probabilities[inside] = _fitted(components, labels, ~inside, strength, classes)[inside]
        tries.append((_log_loss(probabilities, wanted, several=False), probabilities))
    return min(tries, key=lambda one: one[0])[1]


def _fitted(
    components: Array, labels: NDArray[np.int64], seen: NDArray[np.bool_], strength: float, classes: int
) -> Array:
    """Return the probabilities of all images (N, C) by a fit to those that it has seen."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    probabilities = np.zeros((len(labels), classes))
    present = np.unique(labels[seen])
    if len(present) < 2:
        probabilities[:, present] = 1.0
        return probabilities
    model = LogisticRegression(C=strength, max_iter=200)
    with warnings.catch_warnings():  # a fit that is nearly done ranks as well
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(components[seen], labels[seen])
    probabilities[:, model.classes_] = model.predict_proba(components)
    return probabilities


def _neighbours(values: Array, wanted: Array, several: bool) -> tuple[Array, Array]:
    """Return the shares of the classes among the nearest images (N, C), by the cosine of centred features."""
    centred = torch.from_numpy(values - values.mean(axis=0))
    directions = torch.nn.functional.normalize(centred, dim=1).float()
    targets, n = torch.from_numpy(wanted).float(), len(values)
    near = min(NEIGHBOURS, n - 1)
    rows = max(1, _BLOCK // n)
    shares = torch.empty(n, wanted.shape[1], dtype=torch.float64)
    for start in range(0, n, rows):
        block = directions[start : start + rows] @ directions.T
        own = torch.arange(len(block))
        block[own, own + start] = -torch.inf
        alike, positions = block.topk(near, dim=1)
        weights = alike.clamp(min=1e-6)
        found = (weights[:, :, None] * targets[positions]).sum(1) / weights.sum(1, keepdim=True)
        shares[start : start + rows] = found.double()
    scores = shares.numpy()
    smooth = scores + _SMOOTHING
    total = 1 + 2 * _SMOOTHING if several else smooth.sum(axis=1, keepdims=True)
    return scores, smooth / total


def _principal_components(values: Array) -> Array:
    """Return the first principal components of standardised features (N, K).

    A penalised fit to all of them is the fit to the features; few are left out, of data sets of more images.
    """
    deviation = values.std(axis=0)
    standard = (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    n, d = standard.shape
    gram = standard @ standard.T if n < d else standard.T @ standard
    variances, vectors = np.linalg.eigh(gram)
    first = np.argsort(variances)[::-1][:_COMPONENTS]
    first = first[variances[first] > variances.max() * 1e-10]
    if not len(first):  # features that never change
        return np.zeros((n, 1))
    if n < d:
        return np.asarray(vectors[:, first] * np.sqrt(variances[first]))
    return np.asarray(standard @ vectors[:, first])


def _log_loss(probabilities: Array, wanted: Array, several: bool) -> float:
    """Return the mean log loss of answers (N, C)."""
    sure = np.clip(probabilities, 1e-12, 1 - 1e-12)
    losses = wanted * np.log(sure) + (several * (1 - wanted)) * np.log(1 - sure)
    return -float(losses.sum(axis=1).mean())
