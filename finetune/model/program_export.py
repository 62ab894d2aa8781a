"""Write a model as a program of PyTorch's own (`torch.export`), and run it."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from finetune.model.deployed import DeployedClassifier
from finetune.model.onnx_export import Inputs, dynamic_shapes, example_inputs


def write_program(
    module: DeployedClassifier,
    path: Path,
    *,
    columns: Mapping[str, torch.dtype],
    properties: Mapping[str, str],
) -> None:
    """Write a model as a `.pt2` file.

    Args:
        module: the model, on the CPU.
        path: the file.
        columns: type of each column of metadata, by name.
        properties: what the file says of itself, as extra files.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            module, example_inputs(columns), dynamic_shapes=dynamic_shapes(columns), strict=False
        )
        with path.open("wb") as file:
            torch.export.save(program, file, extra_files=dict(properties))


class TorchProgram:
    """A `.pt2` file, ready to answer."""

    def __init__(self, path: Path) -> None:
        """Load a file."""
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._module = torch.export.load(file).module()

    def probabilities(self, inputs: Inputs) -> NDArray[Any]:
        """Return the probability of each class (N, C)."""
        with torch.inference_mode():
            found = self._module(*(torch.from_numpy(value) for value in inputs.values()))
        first: torch.Tensor = found[0] if isinstance(found, tuple) else found
        answer: NDArray[Any] = first.numpy()
        return answer
