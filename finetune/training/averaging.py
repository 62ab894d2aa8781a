"""The exponential moving average of the weights that a stage trains (Polyak & Juditsky, 1992).

The optimizer goes on from the weights themselves, which jump from step to step as far as the rate lets
them; the average lies in the middle of where they have been, and is what is validated and kept.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from finetune.machine.divided import cut_as, note_rows, which_rows
from finetune.training.norms import NamedTensor


class WeightAverage:
    """The average of the tensors that move in a stage; running statistics that move are averaged as well."""

    def __init__(self, moving: Sequence[NamedTensor], decay: float) -> None:
        """Begin with the tensors as they are; `decay` is the weight of the past, 0–1."""
        self._names = [name for name, _ in moving]
        self._moving = [tensor.detach() for _, tensor in moving]
        self._average = [tensor.clone() for tensor in self._moving]
        for average, (_, tensor) in zip(self._average, moving, strict=True):
            note_rows(average, which_rows(tensor))
        self._decay = decay
        self._steps_go_on_from: list[Tensor] | None = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The average, by the name that each tensor has in the model."""
        return dict(zip(self._names, self._average, strict=True))

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a saved average of the same tensors, which are whole."""
        for average, name in zip(self._average, self._names, strict=True):
            average.copy_(cut_as(average, tensors[name]))

    def update(self, step: int) -> None:
        """Let the average follow the weights after a step, counted from 0.

        In the first steps the past weighs less, as in timm: an average that still held the weights before
        training would be behind for 1 / (1 − decay) steps.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        follow = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        follow(self._average, self._moving, step)

    @property
    def is_in_model(self) -> bool:
        """Whether the model holds the average, and not what the steps go on from."""
        return self._steps_go_on_from is not None

    def put_into_model(self) -> None:
        """Let the model hold the average, until `take_out`; what is frozen is not touched."""
        self._steps_go_on_from = [tensor.clone() for tensor in self._moving]
        self._copy(self._average)

    def take_out(self) -> None:
        """Let the model hold again what the steps go on from, to the last bit."""
        assert self._steps_go_on_from is not None
        self._copy(self._steps_go_on_from)
        self._steps_go_on_from = None

    def _copy(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self._moving, values)
