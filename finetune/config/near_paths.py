"""Find what a path that leads nowhere was meant to be: a misspelt name, or a file one folder away."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

_ENDINGS = (".yaml", ".yml")
_SEEN = 1000  # entries of a folder that are looked at


def near_path(path: Path) -> Path | None:
    """Return the config, or the folder or table of images, that a path was probably meant to name."""
    kinds = _ENDINGS if path.suffix in _ENDINGS else (path.suffix,)
    beside = [entry for entry in _entries(path.parent) if entry.suffix in kinds or entry.is_dir()]
    if near := _nearest(path, beside):
        return near
    # configs/pets.yaml for confgs/pets.yaml, and for pets.yaml
    folder = _nearest(path.parent, _entries(path.parent.parent))
    below = _entries(path.parent)
    moved = [entry / path.name for entry in [*([folder] if folder else []), *below]]
    return next((candidate for candidate in moved if candidate.is_file()), None)


def _nearest(path: Path, candidates: Iterable[Path]) -> Path | None:
    """Return the candidate with the most similar name, if one is similar at all."""
    by_name = {_stem(candidate).lower(): candidate for candidate in candidates}
    near = get_close_matches(_stem(path).lower(), by_name, n=1, cutoff=0.7)
    return by_name[near[0]] if near else None


def _stem(path: Path) -> str:
    """Return the name without the ending of a config, which would make all configs similar."""
    return path.stem if path.suffix in _ENDINGS else path.name


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry, _ in zip(sorted(folder.iterdir()), range(_SEEN), strict=False)]
    except OSError:
        return []
