"""Steps in proportion to the size of past gradients, where torch computes something else."""

from collections.abc import Iterable

import torch
from torch.optim.adam import adam

from finetune.machine.divided import norms_of_whole
from finetune.machine.ranks import ALONE, Ranks
from finetune.optim.multi_tensor import Group, MultiTensorOptimizer, Tensors

LARGEST_TRUST = 10.0


class RMSprop(MultiTensorOptimizer):
    """Divide each gradient by the root of a mean of its squares (Hinton, 2012).

    s ← b2·s + (1−b2)·g²; w ← w − lr·g/√(s+ε). torch has √s + ε instead.
    """

    memory = ("square",)

    def __init__(
        self, params: Iterable[Group], *, beta2: float, eps: float, decoupled_weight_decay: bool
    ) -> None:
        defaults = {"beta2": beta2, "eps": eps}
        super().__init__(params, defaults, decoupled_weight_decay=decoupled_weight_decay)

    def _update(self, group: Group, parameters: Tensors, gradients: Tensors, *memory: Tensors) -> None:
        (squares,) = memory
        torch._foreach_mul_(squares, group["beta2"])
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - group["beta2"])
        roots = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(roots)
        torch._foreach_addcdiv_(parameters, gradients, roots, value=-group["lr"])


class Lamb(MultiTensorOptimizer):
    """Take Adam's direction, in each tensor as far as the tensor is large (You et al., 2020).

    r = m̂/(√ŝ + ε) as in Adam; w ← w − lr·min(‖w‖/‖r‖, 10)·r, with a plain −lr·r where a norm is 0 and, as
    in the authors' code, in vectors: biases that start near 0 could never leave it. The paper leaves the
    bound open; 10 is that of fastai. Decay is apart from all this, as in fastai and unlike in the paper.
    """

    memory = ("mean", "square", "step")

    def __init__(
        self,
        params: Iterable[Group],
        *,
        betas: tuple[float, float],
        eps: float,
        decoupled_weight_decay: bool,
        ranks: Ranks = ALONE,
    ) -> None:
        """Begin with no memory; `ranks` hold rows of the tensors each, where these are divided."""
        self._ranks = ranks  # the norms are those of whole tensors
        # `fused` makes torch keep the number of steps beside the parameters when a state is loaded.
        defaults = {"betas": betas, "eps": eps, "fused": True}
        super().__init__(params, defaults, decoupled_weight_decay=decoupled_weight_decay)

    def _update(self, group: Group, parameters: Tensors, gradients: Tensors, *memory: Tensors) -> None:
        directions = _adam_directions(group, gradients, *memory)
        matrices = [pair for pair in zip(parameters, directions, strict=True) if pair[0].dim() > 1]
        if matrices:
            weights, steps = map(list, zip(*matrices, strict=True))
            torch._foreach_mul_(steps, _trust(weights, steps, self._ranks))
        torch._foreach_add_(parameters, directions, alpha=group["lr"])


def _adam_directions(
    group: Group, gradients: Tensors, means: Tensors, squares: Tensors, steps: Tensors
) -> Tensors:
    """Return −m̂/(√ŝ + ε): where torch's fused Adam gets to from 0 with a rate of 1."""
    directions = [torch.zeros_like(mean) for mean in means]
    beta1, beta2 = group["betas"]
    adam(
        directions,
        gradients,
        means,
        squares,
        [],
        steps,
        fused=True,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=1.0,
        weight_decay=0.0,
        eps=group["eps"],
        maximize=False,
    )
    return directions


def _trust(weights: Tensors, steps: Tensors, ranks: Ranks) -> Tensors:
    """Return the factor for each tensor's step that makes it as large as the tensor, at most 10."""
    norms = torch.stack([torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, steps)])
    sizes, lengths = norms_of_whole(norms, weights, ranks)
    ratios = (sizes / lengths).clamp(max=LARGEST_TRUST)
    return list(ratios.where((sizes > 0) & (lengths > 0), 1.0).unbind())
