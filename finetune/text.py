"""Names from files and folders are data: made harmless here before anybody reads them."""

_FORMULA_STARTS = ("=", "+", "-", "@", "'")


def printable(text: str, *, keep: str = "") -> str:
    """Escape what must not reach a terminal: control characters, undecodable bytes, invisible marks.

    Args:
        text: a name, or a message that holds names.
        keep: characters that stay as they are, for instance the line ends of a message.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def protect_cell(cell: str) -> str:
    """Keep a spreadsheet from taking a name for a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


def unprotect_cell(cell: str) -> str:
    """Return the name that `protect_cell` was given."""
    return cell[1:] if cell.startswith("'") else cell
