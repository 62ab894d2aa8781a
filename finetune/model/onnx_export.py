"""Write a model as ONNX, make the file smaller, and run it.

The wrapper of `deployed` is what is written: resize, crop and probabilities are inside the file.
"""

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.torch_version import TorchVersion

from finetune.errors import ConfigError, MachineError
from finetune.model.deployed import FEATURES, IMAGES, PROBABILITIES, DeployedClassifier

INSTALL = "pip install 'finetune-vision[onnx]'"

LARGEST = 2**31 - 2**20
"""bytes of weights: protobuf has room for 2 GiB, and what describes the network needs some"""

_OPSET = 18
_QUANTIZED = ["Conv", "Gemm", "MatMul"]

Inputs = Mapping[str, NDArray[Any]]
"""Images (N, H, W, 3), uint8, and columns of metadata (N,), by the name of the input."""


OLDEST = "2.11"
"""of torch's releases whose exporters write these programs; that of 2.9 fails, others were not tried"""


def require_exporter(what: str) -> None:
    """Make sure that torch can write a program in which sides are free.

    Raises:
        ConfigError: it is too old.
    """
    if TorchVersion(torch.__version__) < OLDEST:
        raise ConfigError(
            f"export --format {what} needs PyTorch {OLDEST} or newer; this is {torch.__version__}.\n"
            "Install it, or use --format timm for a network of timm's."
        )


def require_onnx() -> None:
    """Make sure that what writes and runs ONNX is there, before the work.

    Raises:
        ConfigError: it is not installed.
    """
    require_exporter("onnx")
    missing = [
        name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ConfigError(f"export --format onnx needs {', '.join(missing)}.\nInstall it: {INSTALL}")


def example_inputs(columns: Mapping[str, torch.dtype]) -> tuple[Tensor, ...]:
    """Return what a program is traced with: two pictures with sides that are no multiples of anything.

    `columns` are those of metadata, by name.
    """
    pixels = torch.randint(0, 256, (2, 181, 243, 3), dtype=torch.uint8, generator=torch.Generator())
    return pixels, *(torch.zeros(2, dtype=kind) for kind in columns.values())


def dynamic_shapes(columns: Mapping[str, torch.dtype]) -> tuple[Any, ...]:
    """Say which sides of the inputs of a `DeployedClassifier` are free: all but the three colours."""
    free = torch.export.Dim.DYNAMIC
    rest = tuple({0: free} for _ in columns)
    return ({0: free, 1: free, 2: free}, rest) if rest else ({0: free, 1: free, 2: free},)


def write_onnx(
    module: DeployedClassifier,
    path: Path,
    *,
    columns: Mapping[str, torch.dtype],
    properties: Mapping[str, str],
    features: bool,
) -> None:
    """Write a model as an ONNX file.

    Args:
        module: the model, on the CPU.
        path: the file.
        columns: type of each column of metadata, by name.
        properties: what the file says of itself.
        features: whether it also returns features.

    Raises:
        MachineError: torch's exporter cannot write this network, or one file cannot hold it.
    """
    import onnx

    size = sum(tensor.nbytes for tensor in module.state_dict().values())
    if size > LARGEST:
        raise MachineError(
            f"export: an ONNX file holds at most {LARGEST / 1e9:.1f} GB; this network has {size / 1e9:.1f}.\n"
            "Use --format torch, or train a smaller model.arch."
        )
    proto = _exported(module, columns, [PROBABILITIES, FEATURES] if features else [PROBABILITIES])
    _name_free_sides(proto)
    onnx.helper.set_model_props(proto, dict(properties))
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise _cannot_write(error) from error
    onnx.save(proto, str(path))


def _exported(module: DeployedClassifier, columns: Mapping[str, torch.dtype], outputs: Sequence[str]) -> Any:
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                module,
                example_inputs(columns),
                dynamo=True,
                opset_version=_OPSET,
                external_data=False,
                input_names=[IMAGES, *columns],
                output_names=outputs,
                dynamic_shapes=dynamic_shapes(columns),
                verbose=False,
            )
            return program.model_proto
    except torch.onnx.OnnxExporterError as error:
        raise _cannot_write(error) from error


def _cannot_write(error: Exception) -> MachineError:
    return MachineError(
        f"export: torch {torch.__version__} cannot write this network as ONNX: {_cause(error)}\n"
        "Use --format torch, --format timm for one of timm's, or another release of torch."
    )


def _cause(error: BaseException) -> str:
    """Return the first line of what an error began with; the exporter's own are about reports to write."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


def _name_free_sides(proto: Any) -> None:
    """Call the free sides N, H and W: the exporter numbers them."""
    names: dict[str, str] = {}
    for value in proto.graph.input:
        sides = value.type.tensor_type.shape.dim
        names |= dict(zip([side.dim_param for side in sides], "NHW", strict=False))
    for value in [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]:
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param in names:
                side.dim_param = names[side.dim_param]


def halve_onnx(source: Path, target: Path) -> None:
    """Write a file with weights and sums in float16; what goes in and comes out stays as it is."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(str(source))
    with _quiet():
        half = convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=False)
    onnx.save(half, str(target))


def quantize_onnx(source: Path, target: Path, examples: Sequence[Inputs]) -> None:
    """Write a file with weights and activations in int8, by the ranges that examples have.

    Static, per channel: with ranges that are found anew for each picture convolutions are slower.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Examples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest = iter(examples)

        def get_next(self) -> Inputs | None:
            return next(self._rest, None)

    with _quiet():
        quantize_static(
            str(source),
            str(target),
            Examples(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=_QUANTIZED,
        )


class OnnxModel:
    """An ONNX file, ready to answer on the CPU."""

    def __init__(self, path: Path) -> None:
        """Load a file."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )

    def probabilities(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return the probability of each class (N, C)."""
        found: NDArray[np.float32] = self._session.run([PROBABILITIES], dict(inputs))[0]
        return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporters have to say of themselves from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
