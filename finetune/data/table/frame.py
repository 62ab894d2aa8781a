"""Rows as a pandas DataFrame, for those who have pandas."""

from collections.abc import Mapping, Sequence
from typing import Any


def to_frame(rows: Sequence[Mapping[str, object]]) -> Any:
    """Return a pandas DataFrame of rows that have the same keys; the rows, where pandas is not installed."""
    try:
        import pandas
    except ImportError:
        return list(rows)
    return pandas.DataFrame(list(rows))
