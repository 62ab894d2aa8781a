"""Pretrained weights: find what `model.weights` names, fetch it if need be, and read it."""

import json
import logging
from dataclasses import dataclass, replace
from os.path import exists, isfile
from pathlib import Path
from urllib.parse import urlparse

from torch import Tensor
from torchvision.models import WeightsEnum

from finetune.errors import CheckpointError, ConfigError, WeightsError
from finetune.model.architecture import Architecture
from finetune.model.catalogue import architectures, weights_enum
from finetune.model.download import Download, Say, cached_path, fetch, has_named_hash
from finetune.model.origin import Origin, sha256_of
from finetune.model.preprocessing import Preprocessing
from finetune.model.tensors import SUFFIXES, read_tensors
from finetune.model.timm_weights import TimmWeights, default_preprocessing, find_timm_weights
from finetune.text import expanded, printable

_BUILTIN = Path(__file__).parents[1] / "data" / "builtin"

_RESCALED = ("googlenet", "inception")


@dataclass(frozen=True)
class TorchvisionWeights:
    """Weights of torchvision's catalogue; what `TimmWeights` is for timm's."""

    entry: WeightsEnum

    @property
    def origin(self) -> str:
        """The name of their file, for messages."""
        return cached_path(self.entry.url).name

    def pending(self) -> Download | None:
        """Tell what would have to be fetched; None where nothing would."""
        return None if cached_path(self.entry.url).exists() else self._download()

    def read(self, say: Say) -> tuple[dict[str, Tensor], Preprocessing, Origin]:
        """Read their tensors, after fetching them if need be, how images enter them, and where they lay.

        Raises:
            WeightsError: the file is damaged, or cannot be fetched.
        """
        path = cached_path(self.entry.url)
        if not exists(path):
            fetch(self._download(), path, say)
        elif not has_named_hash(path):
            say(
                f"{path} is not the file that torchvision published (its sha256 differs); "
                "using it all the same."
            )
        tensors, _ = read_tensors(path, advice="Delete it, and it is fetched again.")
        source = Origin("cache", path.name, sha256=sha256_of(path))
        return tensors, Preprocessing.from_weights(self.entry.transforms()), source

    def _download(self) -> Download:
        size = Preprocessing.from_weights(self.entry.transforms()).image_size
        return Download(self.entry.url, self.entry.meta["_file_size"], size)


@dataclass(frozen=True)
class Weights:
    """Pretrained weights, and what they say about images."""

    origin: str
    """Where they came from, for messages."""
    preprocessing: Preprocessing
    tensors: dict[str, Tensor] | None
    """By the names of torchvision or timm, or by ours for a run; None for random weights."""
    transform_input: bool = False
    """Whether GoogLeNet and Inception rescale their input."""
    of_run: bool = False
    """Whether the names are those of an `ImageClassifier`."""
    source: Origin | None = None
    """The same for the record of a run; None for weights that a program has made."""
    arch: str | None = None
    """Architecture that they belong to; None where only their names and shapes tell."""


def load_weights(name: str, arch: Architecture, say: Say | None = None) -> Weights:
    """Find and read the weights that `model.weights` names.

    Args:
        name: `default`; a torchvision name such as `IMAGENET1K_V2`, or a tag of timm's such as `a1_in1k`;
            `hf-hub:OWNER/NAME` for timm's architectures; a `.safetensors` or `.pth` file; `builtin:NAME`; or
            `none` for random weights.
        arch: the architecture they are for.
        say: called with a line before a download, and about anything doubtful; by default it is logged.

    Raises:
        ConfigError: there are no weights of that name, or they are another architecture's.
        WeightsError: the file is missing, damaged, or cannot be fetched.
    """
    say = say or logging.getLogger(__name__).warning
    if name == "none":
        return Weights(name, _default_preprocessing(arch), tensors=None, source=Origin("none", name))
    if name.startswith("builtin:"):
        found = _load_file(_find_builtin(name), arch, say, rescaled=False)
        assert found.source is not None
        return replace(found, source=replace(found.source, kind="builtin", name=name))
    if published := _find_published(name, arch):
        tensors, preprocessing, source = published.read(say)
        rescaled = arch.family in _RESCALED
        return Weights(published.origin, preprocessing, tensors, transform_input=rescaled, source=source)
    path = expanded(name)
    if path.suffix in SUFFIXES or isfile(path):
        return _load_file(path, arch, say, rescaled=arch.family in _RESCALED)
    if arch.of_timm and "/" not in name:
        raise ConfigError(
            f"model.weights: {arch.name} has no weights called {name!r}; there is default, "
            f"{', '.join(arch.weights)}, hf-hub:OWNER/NAME, a .safetensors or .pth file, a run folder, "
            "or none."
        )
    raise WeightsError(f"model.weights: there is no file or run folder {printable(str(path))}.")


def pending_download(name: str, arch: Architecture) -> Download | None:
    """Tell what `load_weights` would have to fetch first; None where everything is on this machine.

    Raises:
        ConfigError: as `load_weights`.
    """
    published = _find_published(name, arch)
    return None if published is None else published.pending()


def _find_published(name: str, arch: Architecture) -> TorchvisionWeights | TimmWeights | None:
    """Return the published weights that `model.weights` names; None where it names something else."""
    if arch.of_timm:
        return find_timm_weights(name, arch)
    entry = _torchvision_entry(name, arch)
    return None if entry is None else TorchvisionWeights(entry)


def _torchvision_entry(name: str, arch: Architecture) -> WeightsEnum | None:
    """Return the entry of torchvision's catalogue that a name means; None for all other weights."""
    if name == "default":  # before paths: a folder may be called so as well
        default: WeightsEnum = weights_enum(arch.name)["DEFAULT"]
        return default
    path = expanded(name)
    elsewhere = name == "none" or name.startswith("builtin:") or path.suffix in SUFFIXES or "/" in name
    return None if elsewhere or exists(path) else _find_entry(name, arch)


def _default_preprocessing(arch: Architecture) -> Preprocessing:
    if arch.of_timm:
        return default_preprocessing(arch)
    return Preprocessing.from_weights(weights_enum(arch.name)["DEFAULT"].transforms())


def _find_builtin(name: str) -> Path:
    path = _BUILTIN / f"{name.removeprefix('builtin:')}.safetensors"
    known = sorted(f"builtin:{file.stem}" for file in _BUILTIN.glob("*.safetensors"))
    if f"builtin:{path.stem}" not in known:
        raise ConfigError(f"model.weights: there is no {name}; there is {', '.join(known) or 'none at all'}.")
    return path


def _find_entry(name: str, arch: Architecture) -> WeightsEnum:
    """Look up a name such as `IMAGENET1K_V2` or `ResNet50_Weights.IMAGENET1K_V2`."""
    owner, _, entry = name.rpartition(".")
    enum = weights_enum(arch.name)
    if owner and owner != enum.__name__:
        theirs = [other.name for other in architectures() if weights_enum(other.name).__name__ == owner]
        advice = f"set model.arch: {theirs[0]}" if theirs else "no architecture has them"
        raise ConfigError(f"model.weights: {name} is not for {arch.name}; {advice}.")
    if entry not in enum.__members__:
        raise ConfigError(
            f"model.weights: {arch.name} has no weights called {name!r}; there is default, "
            f"{', '.join(arch.weights)}, a .safetensors or .pth file, a run folder, builtin:NAME, or none."
        )
    found: WeightsEnum = enum[entry]
    return found


def _load_file(path: Path, arch: Architecture, say: Say, *, rescaled: bool) -> Weights:
    tensors, metadata = read_tensors(path, advice="Restore it, or name other weights.")
    made_for = metadata.get("arch", arch.name)
    if made_for != arch.name:
        raise ConfigError(
            f"model.weights: {path.name} holds weights of {made_for}, not of {arch.name}; "
            f"set model.arch: {made_for}."
        )
    if "preprocessing" in metadata:
        preprocessing = _read_preprocessing(metadata["preprocessing"], path)
    else:
        preprocessing = _preprocessing_by_file_name(path, arch, say)
    source = Origin("file", str(path.absolute()), sha256=sha256_of(path))
    return Weights(str(path), preprocessing, tensors, transform_input=rescaled, source=source)


def _read_preprocessing(text: str, path: Path) -> Preprocessing:
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise CheckpointError("preprocessing: expected a JSON object.")
        return Preprocessing.from_dict(fields)
    except (json.JSONDecodeError, CheckpointError) as error:
        raise WeightsError(f"model.weights: the metadata of {path} is wrong: {error}") from None


def _preprocessing_by_file_name(path: Path, arch: Architecture, say: Say) -> Preprocessing:
    """Take the preprocessing of the torchvision weights that the file is called after, else the default's."""
    for weights in () if arch.of_timm else weights_enum(arch.name):
        if Path(urlparse(weights.url).path).name == path.name:
            return Preprocessing.from_weights(weights.transforms())
    preprocessing = _default_preprocessing(arch)
    say(
        f"{path.name} does not say how its images were normalised and resized; "
        f"using what {arch.name}'s default weights need ({preprocessing.image_size} px)."
    )
    return preprocessing
