"""Run a trained model over images: the one loop behind evaluation and prediction."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from finetune.data.loading.share import BatchShare, EvalShare
from finetune.machine.divided import has_divided


class MeanOverViews(nn.Module):
    """A model that looks at several views of each image, and answers by the mean of its logits.

    On photographs their mean is right as often as that of the probabilities, with the lower loss: see
    docs/recipe.md.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, views: Tensor, *metadata: Tensor) -> Tensor:
        """Turn views (N, V, 3, H, W) and what else the model takes into logits (N, C) of the mean.

        The model sees one view of each image at a time, so that it takes no more memory than without.
        """
        logits = [self.model(views[:, number], *metadata) for number in range(views.shape[1])]
        return torch.stack(logits).mean(0)


def compute_logits(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    *,
    device: torch.device,
    done: Callable[[int], None] = lambda batches: None,
) -> tuple[Tensor, Tensor]:
    """Return the logits (N, C) and targets of all batches, on the CPU, with the model in eval mode.

    Args:
        model: takes images (N, 3, H, W), and what else a batch holds, and gives logits (N, C).
        batches: the inputs of the model and, as the last, the targets (N, …).
        device: where the model is.
        done: called with the number of batches done.
    """
    model.eval()
    logits, targets = [], []
    # In inference mode torch would put divided weights together to tensors that no training can use.
    with torch.no_grad() if has_divided(model) else torch.inference_mode():
        for number, (*inputs, batch_targets) in enumerate(batches, start=1):
            logits.append(model(*(one.to(device, non_blocking=True) for one in inputs)))
            targets.append(batch_targets)
            done(number)
    # One copy each, for which a GPU waits.
    return put_together(batches, torch.cat(logits).cpu()), put_together(batches, torch.cat(targets).cpu())


def put_together(batches: Iterable[tuple[Tensor, ...]], rows: Tensor) -> Tensor:
    """Return what was made of all images (N, …), from what this rank made of the batches that it has."""
    share: EvalShare | None = getattr(batches, "share", None)
    return rows if share is None else share.gather(rows)


def share_of(batches: object) -> BatchShare | None:
    """Return what this rank loads of each training batch; None for all of it."""
    share: BatchShare | None = getattr(batches, "share", None)
    return share
