"""Mix the images of a batch in pairs: mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019)."""

import torch
from torch import Tensor
from torchvision.transforms import v2

from finetune.seed import drawing_from

_DRAWS = 1000  # their mean entropy is known to about 2%


class Mix:
    """Mixes each image of a batch with another one, and their targets by the same shares.

    A mixture of two images has no class of its own: targets become shares of the classes, (N, C).
    """

    def __init__(self, *, mixup: float, cutmix: float, classes: int) -> None:
        """Choose how images are mixed; of two ways each batch is given one, at random.

        Args:
            mixup: α of the shares of the two images, drawn from Beta(α, α); 0 for no mixup.
            cutmix: the same of their areas; 0 for no CutMix.
            classes: number of classes C.
        """
        ways: list[v2.Transform] = []
        if mixup:
            ways.append(v2.MixUp(alpha=float(mixup), num_classes=classes))
        if cutmix:
            ways.append(v2.CutMix(alpha=float(cutmix), num_classes=classes))
        self._way, self._classes = v2.RandomChoice(ways), classes

    def __call__(self, images: Tensor, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return float images (N, 3, H, W) in the range of those given, and targets (N, C).

        Args:
            images: (N, 3, H, W), uint8 or float.
            targets: classes (N,), or 0 and 1 for each class (N, C).
            seed: decides all that is random (a result of `derive`).
        """
        with drawing_from(seed):
            mixed: tuple[Tensor, Tensor] = self._way(images.float(), targets)
        return mixed

    def shares(self) -> list[float]:
        """Return the share of the first of two images in many mixtures, to compute means over all with."""
        pair, targets = torch.zeros(2, 1, 64, 64), torch.eye(2, self._classes)
        return [float(self(pair, targets, seed)[1][0, 0]) for seed in range(_DRAWS)]
