"""What a data set was taken for: folders of splits, columns of a table, and what was left out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from finetune.choices import FolderLayout, Split
from finetune.text import counted, printable, shortened

LayoutKind = Literal[
    "class folders",
    "split folders",
    "groups of class folders",
    "class folders of groups",
    "innermost folders",
    "file names",
    "table",
    "built-in",
]
HERE = "."
"""The data set's own folder, among the folders of a split."""


@dataclass(frozen=True)
class FolderOptions:
    """How a folder of images is to be read, where that was said."""

    layout: FolderLayout | Mapping[Split, str] = "auto"
    """`classes`: its folders are classes; `groups`: they hold class folders; `classes/groups`: they are
    classes and hold groups; `innermost`: those that hold images are classes; or the folder of each split"""
    label_pattern: str | None = None
    """regular expression with one group, which finds the class in the name of a file"""

    @property
    def depth(self) -> int:
        """How many folders stand above those of classes."""
        return int(self.layout == "groups")


@dataclass(frozen=True)
class LeftOut:
    """Files, folders or columns of a data set of which nothing was made."""

    what: str
    """such as `files .txt`"""
    why: str
    count: int


@dataclass(frozen=True)
class Layout:
    """What a data set was taken for."""

    kind: LayoutKind
    splits: Mapping[Split, tuple[str, ...]] = field(default_factory=dict)
    """the folders of each split that the data has itself, relative to its own, which is `.`"""
    image_column: str | None = None
    """of a table"""
    label_column: str | tuple[str, ...] | None = None
    """of a table; several where each class has its own"""
    encoding: str | None = None
    """of the text of a table"""
    left_out: tuple[LeftOut, ...] = ()
    remark: str = ""
    """what else the line says"""
    notes: tuple[str, ...] = ()
    """what was done to read it, for the line"""

    def line(self) -> str:
        """Return it in one line for the screen."""
        parts = []
        if self.remark:
            parts.append(self.remark)
        if any(folders != (HERE,) for folders in self.splits.values()):
            pairs = [f"{split} in {' and '.join(folders)}" for split, folders in self.splits.items()]
            parts.append(", ".join(pairs))
        if self.image_column is not None:
            parts.append(f"images in column {shortened(self.image_column)!r}{self._labels()}")
        if self.encoding not in (None, "utf-8"):
            parts.append(f"read as {self.encoding}")
        parts += self.notes
        return printable(": ".join([self.kind, *filter(None, ["; ".join(parts)])]))

    def to_dict(self) -> dict[str, Any]:
        """Return it as `check --json` and `started.json` hold it."""
        label = self.label_column
        return {
            "kind": self.kind,
            "splits": {split: list(folders) for split, folders in self.splits.items()},
            "image_column": self.image_column,
            "label_column": list(label) if isinstance(label, tuple) else label,
            "encoding": self.encoding,
            "left_out": [asdict(one) for one in self.left_out],
        }

    def without(self, what: str, why: str, count: int) -> Self:
        """Return one that says of something more that it was left out; itself if that is nothing."""
        return replace(self, left_out=(*self.left_out, LeftOut(what, why, count))) if count else self

    def _labels(self) -> str:
        if self.label_column is None:
            return ""
        if isinstance(self.label_column, str):
            return f", labels in {shortened(self.label_column)!r}"
        return f", labels in {counted(len(self.label_column), 'column')} of 0 and 1"


ANYHOW = FolderOptions()
"""Nothing was said of how to read a folder."""

BUILT_IN = Layout("built-in")
