"""What the bits of a computed result depend on beside its input: code, libraries, processor."""

import hashlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def code_digest(*folders: str) -> str:
    """Return the digest of all modules in some folders of the package."""
    package, digest = Path(__file__).parents[1], hashlib.blake2b(digest_size=16)
    for path in sorted(path for folder in folders for path in (package / folder).rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def library_versions(*names: str) -> dict[str, str]:
    """Return the versions of packages; an empty one of those that are not installed."""
    return {name: _version(name) for name in names}


def processor() -> list[str]:
    """Name the processor and what it can do: kernels are chosen by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return [platform.machine(), platform.processor()]
    first = lines[: lines.index("")] if "" in lines else lines
    wanted = ("model name", "flags", "Features", "CPU", "cache size")
    return [platform.machine(), *(line for line in first if line.startswith(wanted))]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
