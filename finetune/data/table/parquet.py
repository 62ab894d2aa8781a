"""Read Parquet, whose cells have types, into cells of text."""

import math
from pathlib import Path

from finetune.errors import DataError, MachineError
from finetune.text import printable, shortened


def read_parquet(path: Path) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the column names and the rows of a Parquet file.

    Numbers, truth values and dates become text, and what is missing becomes empty text. Columns of anything
    else, such as pixels, are left out.

    Raises:
        DataError: it cannot be read.
        MachineError: nothing installed reads it.
    """
    shown = printable(str(path))
    try:
        import pyarrow
    except ImportError:
        raise MachineError(
            f"{shown}: reading Parquet takes pyarrow, which is not installed.\n"
            "Install it with `pip install pyarrow`, or save the table as CSV."
        ) from None
    import pandas  # nearly a second of import, only for those who use it

    try:
        # These types keep whole numbers whole where cells are missing: class 3 must not become class 3.0.
        frame = pandas.read_parquet(path, engine="pyarrow", dtype_backend="numpy_nullable")
    except (pyarrow.ArrowException, ValueError) as error:
        reason = shortened(str(error), 300)
        raise DataError(f"{shown} is not a Parquet file that can be read: {reason}.") from None
    texts = {str(name).strip(): [_as_text(value) for value in frame[name].astype(object)] for name in frame}
    columns = {name: texts[name] for name in texts if None not in texts[name]}
    rows = list(zip(*columns.values(), strict=True))
    return tuple(columns), rows


def _as_text(value: object) -> str | None:
    """Return a value as text, empty where it is missing; None for what is no single value."""
    if isinstance(value, bytes | dict) or (hasattr(value, "__len__") and not isinstance(value, str)):
        return None
    if value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)
