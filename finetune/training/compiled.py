"""The forward pass of a training, compiled by torch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from finetune.errors import MachineError


def compiled(module: nn.Module) -> Callable[..., Any]:
    """Return what computes as a module does, in kernels that torch's compiler makes at the first call.

    Weights, buffers and what is frozen stay those of the module. Each size of a batch is compiled by itself.
    On a GPU the kernels of a pass, forward and backward, are started as CUDA graphs.

    Raises:
        MachineError: when it is called, where torch finds no compiler, or cannot compile the network.
    """
    on_gpu = any(parameter.is_cuda for parameter in module.parameters())
    forward = torch.compile(module, dynamic=False, mode="reduce-overhead" if on_gpu else None)

    def call(*inputs: Any) -> Any:
        from torch._dynamo.exc import TorchDynamoException

        if on_gpu:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            return forward(*inputs)
        except TorchDynamoException as error:
            why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise MachineError(
                f"compile: torch cannot compile this network here: {why}\n"
                "Set compile=false, or install what its compiler needs: g++ for a CPU, triton for a GPU."
            ) from None

    return call
