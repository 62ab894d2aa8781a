"""Linear layers that compute on a CPU as convolutions of one pixel, which oneDNN does sooner than MKL."""

import torch
from torch import Tensor, nn


class RowwiseLinear(nn.Linear):
    """A linear layer over the rows of maps or of sequences; a plain `nn.Linear` wherever that is as quick.

    Forward and backward took 0.70 to 0.90 times as long in float32, and 0.73 to 1.04 times in bfloat16, with
    the layers of ConvNeXt tiny (`benchmarks/layers.py`). The sums are those of `nn.Linear` up to their order.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Turn inputs (…, I) into outputs (…, O)."""
        has_rows = inputs.ndim > 2 and inputs.numel() > 0
        if not has_rows or inputs.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(inputs)
        rows = inputs.reshape(1, 1, -1, self.in_features).permute(0, 3, 1, 2)
        outputs = nn.functional.conv2d(rows, self.weight[:, :, None, None], self.bias)
        return outputs.permute(0, 2, 3, 1).reshape(*inputs.shape[:-1], self.out_features)


def hasten_linear_layers(network: nn.Module) -> None:
    """Turn the linear layers of a network into `RowwiseLinear`, where the processor has AVX-512.

    With AVX2 alone there was nothing to gain. Weights, names and hooks stay; layers of classes of their own
    are left alone.
    """
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not onednn or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return
    for layer in network.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = RowwiseLinear
