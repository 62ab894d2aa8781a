"""Say of a spreadsheet, whose cells no reader of text sees, how it becomes a table."""

import shlex
from pathlib import Path

from finetune.choices import SPREADSHEET_SUFFIXES
from finetune.errors import DataError
from finetune.text import printable


def refuse_spreadsheet(path: Path) -> None:
    """Refuse a file of a spreadsheet program, by its name.

    Raises:
        DataError: it is one.
    """
    if path.suffix.lower() not in SPREADSHEET_SUFFIXES:
        return
    table = path.with_suffix(".csv").name
    code = f"import pandas; pandas.read_excel({path.name!r}, dtype=str).to_csv({table!r}, index=False)"
    raise DataError(
        f"{printable(str(path))} is a spreadsheet, of which a copy as text is read.\n"
        f"Save it as {printable(table)} (in Excel: CSV UTF-8), or: python -c {printable(shlex.quote(code))}"
    )
