"""Find the images that a table of decisions names, and see what is left when some are taken out."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property
from posixpath import basename, normpath

from finetune.data.index import ImageIndex
from finetune.data.table import Table
from finetune.errors import DataError
from finetune.text import printable, quoted, unprotect_cell, with_counts

KEEP, DROP = "keep", "drop"
"""decisions on an image; an empty one keeps it"""

_HINTS = 5  # faults for which the nearest name is looked for: that takes time with many images


class ImageNames:
    """The names of the images of an index."""

    def __init__(self, index: ImageIndex) -> None:
        """Take all images of the data, before any is held out."""
        self._names = {sample.name for sample in index.samples}
        self._root = "" if index.root is None else index.root.as_posix()
        self._hints = _HINTS

    @cached_property
    def _by_file(self) -> dict[str, list[str]]:
        """The names of the images by that of their file."""
        found: dict[str, list[str]] = {}
        for name in self._names:
            found.setdefault(basename(name), []).append(name)
        return found

    def find(self, cell: str) -> str:
        """Return the image that a cell names, from the data's own folder, or from one above or below it.

        Raises:
            ValueError: there is none of this name, or several are called so from folders below.
        """
        tidy = normpath(unprotect_cell(cell.strip()))
        for name in (cell, unprotect_cell(cell), tidy):
            if name in self._names:
                return name
        same = self._by_file.get(basename(tidy), [])
        fitting = sorted(name for name in same if f"{self._root}/{name}".endswith(f"/{tidy.lstrip('/')}"))
        if len(fitting) > 1:
            raise ValueError(f"{printable(cell)!r} may be any of {quoted(fitting)} in the data")
        if fitting:
            return fitting[0]
        hint = self.hint(cell, same, least=0.0) if same else self.hint(cell, self._names)
        raise ValueError(f"no image {printable(cell)!r} in the data{hint}")

    def hint(self, name: str, names: Collection[str], *, least: float = 0.6) -> str:
        """Return the nearest of some names as a question; nothing if none is near, or many were asked for."""
        self._hints -= 1
        near = get_close_matches(name, names, n=1, cutoff=least) if self._hints >= 0 else []
        return f"; did you mean {printable(near[0])!r}?" if near else ""


def named_column(table: Table, name: str, *, key: str, columns: str, command: str) -> Sequence[str]:
    """Return the cells of a column.

    Args:
        table: the table.
        name: what the column is called, in any case.
        key: the key below `data` that names the table.
        columns: all columns that such a table has.
        command: the command that writes such a table.

    Raises:
        DataError: no such column, or more than one.
    """
    positions = [number for number, heading in enumerate(table.header) if heading.casefold() == name]
    if len(positions) != 1:
        raise DataError(
            f"data.{key}: {table} has no column {name!r}; expected the columns {columns}, as "
            f"`finetune {command} --csv FILE` writes them."
        )
    return table.column(positions[0])


def check_classes(before: ImageIndex, after: ImageIndex, because: str) -> ImageIndex:
    """Refuse what leaves nothing to learn a class from, and warn of gaps in validation.

    Args:
        before: all images.
        after: those that are left.
        because: the key and the file that leave others out.

    Raises:
        DataError: a class has no image to train on any more, or there is nothing to validate on.
    """
    train = {name: number for name, number in before.counts("train").items() if number}
    lost = {name: number for name, number in train.items() if not after.counts("train")[name]}
    if lost:
        raise DataError(
            f"{because} leaves no image to train on of {with_counts(lost)}; keep some, or "
            "take the whole class out of the data."
        )
    if before.count("val") and not after.count("val"):
        raise DataError(f"{because} leaves nothing to validate on; keep some val images.")
    val = before.counts("val")
    absent = {name: number for name, number in val.items() if number and not after.counts("val")[name]}
    if not absent:
        return after
    line = f"classes without an image to validate on, because of {because}: {with_counts(absent)}"
    return replace(after, warnings=(*after.warnings, line))
