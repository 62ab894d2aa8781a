"""Tables to decide in what becomes of images, as `finetune check` and `finetune labels` write them."""

from collections.abc import Callable
from os.path import exists
from pathlib import Path

from finetune.data.table import Table, read_table
from finetune.errors import ConfigError, DataError
from finetune.text import counted


def check_nothing_lost(path: Path, decided: Callable[[Table], int]) -> None:
    """Refuse to write over a table in which somebody has decided something.

    Args:
        path: the table, or where there is none yet.
        decided: counts the decisions in a table.

    Raises:
        ConfigError: there are some.
    """
    if not exists(path):
        return
    try:
        table = read_table(path, errors="surrogateescape")
    except DataError:
        return
    if number := decided(table):
        raise ConfigError(
            f"--csv {path}: {counted(number, 'decision')} in this file would be lost.\n"
            "Name another file, or move this one aside."
        )
