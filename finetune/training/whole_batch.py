"""Compute rows of a batch as if the whole batch were here: random draws, and batch normalisation.

What a network makes of an image depends on the others of its batch in these two alone. With them a step over
several ranks, each with its rows, is the step of one process, up to the order of sums.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from finetune.data.loading.share import BatchShare
from finetune.errors import ConfigError
from finetune.machine.ranks import Ranks

_aten = torch.ops.aten
_FACTORIES = (_aten.rand.default, _aten.randn.default)


@contextmanager
def as_of_whole_batch(share: BatchShare | None) -> Iterator[None]:
    """Compute inside as the rows of a share would be computed in their batch; None for a whole batch."""
    if share is None:
        yield
        return
    with _NormOfAll(share), _DrawsOfAll(share):
        yield


class _DrawsOfAll(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Draw for the rows of all ranks, and use what belongs to the own ones.

    Dropout, stochastic depth and the like draw a mask whose first dimension is the batch, or a multiple of it
    such as the windows of each image; all ranks draw from the same seed.
    """

    def __init__(self, share: BatchShare) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._share = share

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **named)
        if func is _aten.bernoulli_.float:
            mask: Tensor = args[0]
            drawn = func(self._like_whole(mask), *args[1:], **named)
            return mask.copy_(self._own(drawn, len(mask)))
        if func is _aten.native_dropout.default and args[2]:
            ones = self._like_whole(args[0]).fill_(1)
            scale, kept = (self._own(one, len(args[0])) for one in func(ones, *args[1:], **named))
            return args[0] * scale, kept.clone()
        if func in _FACTORIES:
            rows, *rest = args[0]
            return self._own(func([self._rows(rows), *rest], *args[1:], **named), rows).clone()
        return self._checked(func, args, named)

    def _rows(self, rows: int) -> int:
        """Return how many rows the batch has where the own images have so many."""
        own = self._share.number
        if rows == 1 < own:
            return 1  # one for all images
        if rows % own:
            raise ConfigError(
                f"The network draws {rows} random rows for {own} images, which cannot be divided among "
                "devices.\nTrain it on one device."
            )
        return rows // own * self._share.part

    def _own(self, drawn: Tensor, rows: int) -> Tensor:
        if len(drawn) == rows:
            return drawn
        each = rows // self._share.number
        return drawn[self._share.first * each :][:rows]

    def _like_whole(self, own: Tensor) -> Tensor:
        """Return an uninitialised tensor for the whole batch, laid out in memory as the own rows are."""
        size = [self._rows(len(own)), *own.shape[1:]]
        # The draws follow the memory: channels-last masks are drawn in another order.
        inner_first = sorted(range(own.ndim), key=lambda dim: (own.stride(dim), -dim))
        if own.shape[0] == 1:
            inner_first = [*(dim for dim in inner_first if dim), 0]
        strides, step = [0] * own.ndim, 1
        for dim in inner_first:
            strides[dim], step = step, step * size[dim]
        return torch.empty_strided(size, strides, dtype=own.dtype, device=own.device)

    def _checked(self, func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Call what may draw, such as attention, which does so with dropout alone."""
        generator = _generator(args)
        before = generator.get_state()
        outcome = func(*args, **named)
        if not torch.equal(before, generator.get_state()):
            raise ConfigError(
                f"The network draws by {func}, which cannot be divided among devices.\n"
                "Train it on one device, or without this kind of dropout."
            )
        return outcome


def _generator(args: Sequence[Any]) -> torch.Generator:
    device = next((one.device for one in args if isinstance(one, Tensor)), torch.device("cpu"))
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator


class _NormOfAll(TorchFunctionMode):
    """Where a layer normalises by the statistics of its batch, take those of all ranks."""

    def __init__(self, share: BatchShare) -> None:
        super().__init__()
        self._share = share

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func is not functional.batch_norm:
            return func(*args, **named)
        return self._batch_norm(*args, **named)

    def _batch_norm(
        self,
        images: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        *rest: float,
        **named: float,
    ) -> Tensor:
        """Take the arguments of `functional.batch_norm`."""
        momentum, eps = (*rest, *(0.1, 1e-5)[len(rest) :])
        momentum, eps = named.get("momentum", momentum), named.get("eps", eps)
        if not training:
            return functional.batch_norm(
                images, running_mean, running_var, weight, bias, False, momentum, eps
            )
        values = images if images.dtype == torch.float64 else images.float()
        dims, shape = [dim for dim in range(values.ndim) if dim != 1], [1, -1, *[1] * (values.ndim - 2)]
        mean, var, number = self._statistics(values, dims)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_((var * (number / max(1, number - 1))).to(running_var.dtype), momentum)
        centred = values - mean.view(shape)
        normalised = centred * (var + eps).rsqrt().view(shape)
        if weight is not None:
            normalised = normalised * weight.view(shape)
        if bias is not None:
            normalised = normalised + bias.view(shape)
        return normalised.to(images.dtype)

    def _statistics(self, values: Tensor, dims: list[int]) -> tuple[Tensor, Tensor, int]:
        """Return mean (C,) and variance (C,) over the rows of all ranks, and the number of values of each.

        The statistics of each rank are put together (Chan et al., 1979) in one exchange.
        """
        share = self._share
        own = values.numel() // values.shape[1]
        number = own // share.number * share.part
        mean = values.mean(dims)
        squares = (values - mean.view([1, -1, *[1] * (values.ndim - 2)])).square().sum(dims)
        row = torch.zeros(share.ranks.size, 1, 1, dtype=values.dtype, device=values.device)
        row[share.ranks.rank] = 1
        counts = [own // share.number * rank.number for rank in share.of_all()]
        means, all_squares = sum_over(share.ranks, row * torch.stack([mean, squares])).unbind(1)
        weights = torch.tensor(counts, dtype=values.dtype, device=values.device)[:, None] / number
        whole = (weights * means).sum(0)
        var = all_squares.sum(0) / number + (weights * (means - whole).square()).sum(0)
        return whole, var, number


class _SumOver(torch.autograd.Function):
    """The sum of a tensor over ranks; its gradient is that of all ranks."""

    @staticmethod
    def forward(ctx: Any, ranks: Ranks, tensor: Tensor) -> Tensor:
        ctx.ranks = ranks
        whole = tensor.clone(memory_format=torch.contiguous_format)
        ranks.add_up(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        whole = gradient.clone(memory_format=torch.contiguous_format)
        ctx.ranks.add_up(whole)
        return None, whole


def sum_over(ranks: Ranks, tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks, through which gradients flow."""
    whole: Tensor = _SumOver.apply(ranks, tensor)
    return whole
