"""Whether an image is like anything that a model was trained on, by the features of both.

The distance of an image is that from its third nearest training image, by the cosine between their features
(Sun et al., 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors"), or from the nearest where a
class has few. What is farther than all but one in a hundred validation images is unlike the training images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NEAREST = 3
"""which neighbour counts; one image that does not belong must not vouch for others like it"""
FEW = 30
"""images of a class up to which it is the nearest: their third may be of another class"""
SHARE = 0.01
"""of the validation images that are unlike the training images by definition, 0–1"""
_AT_ONCE = 1024  # images that are compared with all training images in one product


@dataclass(frozen=True)
class KnownImages:
    """The features of images that a model was trained on, and how far from them is too far."""

    directions: Tensor
    """(N, D), each of length 1"""
    threshold: float
    """distance from which on an image is unlike them, 0–2"""
    nearest: int = NEAREST
    """which of the nearest the distance is from, from 1"""

    def distances(self, features: Tensor) -> Tensor:
        """Return how far images are from them (M,), 0–2, by their features (M, D)."""
        return _distances(self.directions.float(), features, self.nearest)

    def unlike(self, features: Tensor) -> Tensor:
        """Tell which images are unlike them (M,), by their features (M, D)."""
        return self.distances(features) > self.threshold


def know_images(train: Tensor, val: Tensor, *, fewest: int) -> KnownImages:
    """Return the features (N, D) of training images, with a threshold that a share of the others exceeds.

    `fewest` is the number of images of the class that has the fewest of them. Features are kept in float16,
    in which the threshold is chosen as well.
    """
    directions = torch.nn.functional.normalize(train.float(), dim=1).half()
    nearest = 1 if fewest <= FEW else NEAREST
    distances = _distances(directions.float(), val, nearest)
    return KnownImages(directions, float(distances.double().quantile(1 - SHARE)), nearest)


def _distances(directions: Tensor, features: Tensor, nearest: int) -> Tensor:
    nearest = min(nearest, len(directions))
    found = []
    for some in torch.split(features.float(), _AT_ONCE):
        cosines = torch.nn.functional.normalize(some, dim=1) @ directions.T
        found.append(1 - cosines.topk(nearest, dim=1).values[:, -1])
    return torch.cat(found)
