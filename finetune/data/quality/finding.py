"""One thing that a look at a data set has found: its level, its images, and how to fix it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from finetune.data.index import ImageIndex, Sample

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Item:
    """One image, or several that belong together."""

    images: tuple[str, ...]
    """names, relative to the data set's folder"""
    detail: str = ""
    """what is said of just these"""


@dataclass(frozen=True)
class Finding:
    """One thing that somebody should know."""

    level: Level
    """`error`: training would stop, `warning`: it would do worse or look better than it is, `note`"""
    kind: str
    """a word for programs"""
    message: str
    """what is wrong"""
    advice: str = ""
    """how to fix it"""
    items: tuple[Item, ...] = ()

    def to_dict(self, samples: Mapping[str, Sample], index: ImageIndex) -> dict[str, Any]:
        """Return the finding as `check --json` documents it."""
        return {
            "level": self.level,
            "kind": self.kind,
            "message": self.message,
            "advice": self.advice,
            "items": [
                {
                    "images": [
                        {"name": name, "split": s.split, "classes": index.labels_of(s)}
                        for name in item.images
                        for s in (samples[name],)
                    ],
                    "detail": item.detail,
                }
                for item in self.items
            ],
        }
