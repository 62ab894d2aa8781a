"""Where pretrained weights came from, for the record of a run."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

SourceKind = Literal["package", "cache", "hub", "file", "builtin", "run", "none"]

_SHOWN = 8  # digits of a digest that people see


@dataclass(frozen=True)
class Origin:
    """Which weights a backbone began with."""

    kind: SourceKind
    """A Python package, torch's cache, the Hugging Face hub, a file, a file of finetune itself, the best
    model of an earlier run, or none: random weights."""
    name: str
    """Of the package, the repository or the file; the path of a file or of a run folder."""
    version: str | None = None
    """Of the package."""
    sha256: str | None = None
    """Of the file."""

    def __str__(self) -> str:
        match self.kind:
            case "none":
                return "random"
            case "cache":
                text = f"{self.name} in torch's cache"
            case "builtin":
                text = f"{self.name}, a part of finetune"
            case _:
                text = f"{self.kind} {self.name}"
        version = f" {self.version}" if self.version else ""
        digest = f" (sha256 {self.sha256[:_SHOWN]})" if self.sha256 else ""
        return f"{text}{version}{digest}"

    def to_dict(self) -> dict[str, str | None]:
        """Return the fields as plain JSON values."""
        return asdict(self)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
