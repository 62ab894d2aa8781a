"""Files of weights: read them without executing anything in them, check them, copy them into a backbone."""

import re
import warnings
from argparse import Namespace
from collections.abc import Iterable, Mapping
from os.path import isfile
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from finetune.errors import WeightsError
from finetune.model.architecture import Architecture
from finetune.model.fitting import which_fit
from finetune.model.surgery import torchvision_names
from finetune.model.tensor_names import COUNTER, Naming, own_naming
from finetune.text import printable, shortened, where_paths_begin

SUFFIXES = (".safetensors", ".pth", ".pt")

# What torch.load raises on files that are torn or are something else; found by feeding it such files.
_TORN = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError)

# Names that a training script wraps around a state dict.
_WRAPPERS = ("state_dict", "model_state_dict", "model")

# Old DenseNet files say norm.1 where the module is now called norm1.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")

_DEPTH = 4  # of wrappers around wrappers

# Follows from the size of the windows; half precision cannot hold all of it.
_INDEX = "relative_position_index"


def read_tensors(path: Path, *, advice: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file of weights: its tensors by name, and the metadata of a safetensors file.

    Args:
        path: a `.safetensors` file, or a state dict that torch saved.
        advice: what to do about a damaged file, a sentence for the error.

    Raises:
        WeightsError: there is no such file, it is damaged, or it holds more than tensors.
    """
    if not isfile(path):
        raise WeightsError(
            f"model.weights: there is no file {printable(str(path))}.{where_paths_begin(path)}"
        )
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path, advice)
    else:
        tensors, metadata = _state_dict(_unpickle_tensors(path, advice), path), {}
    return {name: _full_precision(name, tensor) for name, tensor in tensors.items()}, metadata


def is_declared_only(tensor: Tensor) -> bool:
    """Tell whether a tensor claims more numbers than its file holds: a kilobyte can declare a terabyte."""
    return tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size()


def is_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor is numbers side by side in memory: not sparse, quantized or complex."""
    return (
        tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and not (tensor.is_quantized or tensor.is_complex())
    )


def copy_weights(
    tensors: Mapping[str, Tensor],
    network: nn.Module,
    backbone: nn.Module,
    *,
    arch: Architecture,
    origin: str,
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
    if faults := describe_misfits(tensors, wanted, own_naming(wanted, everything).cut_off):
        advice = which_fit(tensors, arch, origin)
        raise WeightsError(f"model.weights: {origin} does not fit the architecture: {faults}. {advice}")
    found = {name: tensors[name] for name in wanted if name in tensors}
    _check_values(found, wanted, origin)
    with torch.no_grad():
        for name, tensor in found.items():
            if not name.endswith(_INDEX):
                wanted[name].copy_(tensor)


def _read_safetensors(path: Path, advice: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged ({_first_sentence(error)}). {advice}") from None


def _unpickle_tensors(path: Path, advice: str) -> object:
    """Load with torch's restricted unpickler, which builds tensors and plain containers only.

    Scripts keep their command line beside the weights, as torchvision's and timm's do: a `Namespace` is one.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([Namespace]):
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
    loaded = _unwrapped(loaded)
    if not isinstance(loaded, dict) or not loaded:
        raise WeightsError(
            f"{path} holds no state dict but {type(loaded).__name__}. Save model.state_dict()."
        )
    if len(several := [name for name, value in loaded.items() if _is_state_dict(value)]) > 1:
        one, names = several[0], shortened(", ".join(map(str, several)))
        raise WeightsError(
            f"{path} holds {len(several)} state dicts: {names}.\n"
            f"Save the one you want: import torch; torch.save(torch.load({str(path)!r})[{one!r}], 'one.pth')"
        )
    for name, tensor in loaded.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise WeightsError(
                f"{path} holds {shortened(repr(name))} ({type(tensor).__name__}) among its tensors; it is no "
                "state dict. Save model.state_dict()."
            )
    return {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in loaded.items()}


def _unwrapped(loaded: object) -> object:
    """Go down by the names that scripts wrap around a state dict, or to the only one that there is."""
    for _ in range(_DEPTH):
        if not isinstance(loaded, dict) or _is_state_dict(loaded):
            break
        usual = [name for name in _WRAPPERS if isinstance(loaded.get(name), dict)]
        inside = [name for name, value in loaded.items() if _is_state_dict(value)]
        if not usual and len(inside) != 1:
            break
        loaded = loaded[(usual or inside)[0]]
    return loaded


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _full_precision(name: str, tensor: Tensor) -> Tensor:
    """Return a tensor in float32, and a counter of batches in int64; what is no plain tensor as it is.

    Half precision cannot count beyond 65504: a counter that ran over starts anew, as in old files without.
    """
    if not is_plain(tensor) or not tensor.is_floating_point() or is_declared_only(tensor):
        return tensor
    if name.endswith(COUNTER):
        return tensor.double().nan_to_num(0.0, 0.0, 0.0).round().to(torch.int64)
    return tensor.float()


def describe_misfits(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], cut_off: Iterable[str]
) -> str:
    """Say in a few words which tensors are missing, unexpected or of another shape; empty where none is.

    What begins with one of the names in `cut_off` is not unexpected.
    """
    own = Naming({name: name for name in wanted}, frozenset(cut_off))
    missing, unexpected = own.lacks(tensors), own.unexpected(tensors)
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
        if name.endswith(_INDEX):
            continue
        if not is_plain(tensor) or tensor.is_floating_point() != wanted[name].is_floating_point():
            raise WeightsError(f"model.weights: {origin}: {name} is {tensor.dtype}, not plain numbers.")
        if not bool(tensor.isfinite().all()):
            raise WeightsError(f"model.weights: {origin}: {name} holds NaN or infinity; the file is no good.")


def _first_sentence(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text.split(". ")[0][:120]
