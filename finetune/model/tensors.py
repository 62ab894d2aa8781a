"""Files of weights: read them without executing anything in them, check them, copy them into a backbone."""

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from finetune.errors import WeightsError
from finetune.model.catalogue import architectures
from finetune.model.surgery import torchvision_names
from finetune.text import where_paths_begin

SUFFIXES = (".safetensors", ".pth", ".pt")

# What torch.load raises on files that are torn or are something else; found by feeding it such files.
_TORN = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError)

# Names that a training script wraps around a state dict.
_WRAPPERS = ("state_dict", "model_state_dict", "model")

# Old DenseNet files say norm.1 where the module is now called norm1.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")

_BUFFERS = (
    "running_mean",
    "running_var",
    "num_batches_tracked",
    "relative_position_index",
    "relative_coords_table",
)


def read_tensors(path: Path, *, advice: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file of weights: its tensors by name, and the metadata of a safetensors file.

    Args:
        path: a `.safetensors` file, or a state dict that torch saved.
        advice: what to do about a damaged file, a sentence for the error.

    Raises:
        WeightsError: there is no such file, it is damaged, or it holds more than tensors.
    """
    if not path.is_file():
        raise WeightsError(f"model.weights: there is no file {path}.{where_paths_begin(path)}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, advice)
    return _state_dict(_unpickle_tensors(path, advice), path), {}


def copy_weights(
    tensors: Mapping[str, Tensor], network: nn.Module, backbone: nn.Module, *, origin: str
) -> None:
    """Copy weights under torchvision's names into the backbone that was cut out of `network`.

    Everything in the backbone must be there, with the same shape and finite; a classifier of any size is
    ignored. All is checked before anything is copied, because a file of a kilobyte can declare a terabyte.

    Raises:
        WeightsError: they are another architecture's, or hold numbers that are not finite.
    """
    theirs = torchvision_names(network, backbone).values()
    everything = dict([*network.named_parameters(), *network.named_buffers()])
    wanted = {name: everything[name] for name in theirs}
    cut_off = {name.split(".")[0] for name in everything if name not in wanted}
    _check_fit(tensors, wanted, cut_off, origin)
    found = {name: tensors[name] for name in wanted if name in tensors}
    _check_values(found, wanted, origin)
    with torch.no_grad():
        for name, tensor in found.items():
            wanted[name].copy_(tensor)


def _read_safetensors(path: Path, advice: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged ({_first_sentence(error)}). {advice}") from None


def _unpickle_tensors(path: Path, advice: str) -> object:
    """Load with torch's restricted unpickler, which builds tensors and plain containers only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns about old formats before it raises or reads them
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if found := re.search(r"\bGLOBAL (\S+)", str(error)):
            raise WeightsError(
                f"{path} holds more than tensors ({found[1]}), and finetune executes nothing from a file. "
                "Save only the model's state_dict()."
            ) from None
        raise WeightsError(f"{path} is damaged or not a file of weights. {advice}") from None
    except _TORN as error:
        raise WeightsError(
            f"{path} is damaged or not a file of weights ({_first_sentence(error)}). {advice}"
        ) from None


def _state_dict(loaded: object, path: Path) -> dict[str, Tensor]:
    """Take the state dict out of whatever a training script wrapped around it."""
    for wrapper in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not loaded:
        raise WeightsError(
            f"{path} holds no state dict but {type(loaded).__name__}. Save model.state_dict()."
        )
    for name, tensor in loaded.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise WeightsError(
                f"{path} holds {name!r} ({type(tensor).__name__}) among its tensors; it is no state dict. "
                "Save model.state_dict()."
            )
    return {_OLD_DENSENET.sub(r"\1\2", name.removeprefix("module.")): value for name, value in loaded.items()}


def _check_fit(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], cut_off: set[str], origin: str
) -> None:
    if faults := describe_misfits(tensors, wanted, cut_off):
        raise WeightsError(
            f"model.weights: {origin} does not fit the architecture: {faults}. {_guess(tensors)}"
        )


def describe_misfits(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], cut_off: set[str]) -> str:
    """Say in a few words which tensors are missing, unexpected or of another shape; empty where none is.

    What begins with one of the names in `cut_off` is not unexpected.
    """
    # Files older than 2018 have no num_batches_tracked; torch then counts from 0.
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in tensors if name not in wanted and name.split(".")[0] not in cut_off]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    lists = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    faults = [f"{len(names)} {fault} ({names[0]})" for fault, names in lists.items() if names]
    return f"tensors {', '.join(faults)}" if faults else ""


def _check_values(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], origin: str) -> None:
    for name, tensor in found.items():
        plain = tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_quantized
        if not plain or tensor.is_floating_point() != wanted[name].is_floating_point():
            raise WeightsError(f"model.weights: {origin}: {name} is {tensor.dtype}, not plain numbers.")
        if not bool(tensor.isfinite().all()):
            raise WeightsError(f"model.weights: {origin}: {name} holds NaN or infinity; the file is no good.")


def _guess(tensors: Mapping[str, Tensor]) -> str:
    """Guess the architecture of a file by its number of parameters, which hardly any two have in common."""
    for counted in (tensors, dict(_without_auxiliary(tensors))):
        size = sum(tensor.numel() for name, tensor in counted.items() if not name.endswith(_BUFFERS))
        for arch in architectures():
            if arch.parameters == size:
                return f"It looks like {arch.name}: set model.arch: {arch.name}."
    return "Set model.arch to the architecture it was saved from, or name other weights."


def _without_auxiliary(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((name, tensor) for name, tensor in tensors.items() if not name.lower().startswith("aux"))


def _first_sentence(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text.split(". ")[0][:120]
