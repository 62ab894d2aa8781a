"""What PyYAML finds wrong with a text, in words that say what to change."""

from collections.abc import Sequence

_TAB = "a tab; indent with spaces"
_BACKSLASH = "a backslash in double quotes; use single quotes"
_PLAIN_WORDS = {
    "character '\\t' that cannot start": _TAB,
    "mapping values are not allowed here": "a colon cannot stand here; check the indentation, or quote text",
    "could not find expected ':'": "a key without a colon; write `key: value`",
    "expected <block end>, but found": "the indentation does not match the lines above",
    "expected ',' or ']'": "a list that is not closed; a comma or ] is missing",
    "expected ',' or '}'": "a mapping that is not closed; a comma or } is missing",
    "expected the node content": "a value is missing here, or a bracket is not closed",
    "found unexpected end of stream": "a quoted text that is not closed; a quote is missing",
    "found unknown escape character": _BACKSLASH,
    "expected escape sequence": _BACKSLASH,
    "expected alphabetic or numeric character": "& and * have a meaning in YAML; quote the text",
    "that cannot start any token": "@, ` and % have a meaning in YAML; quote the text",
}


def in_plain_words(problem: str | None, lines: Sequence[str]) -> str:
    """Return what is wrong at a place of a YAML text.

    Args:
        problem: what PyYAML calls it.
        lines: the line of the place; none where it is behind the last one.
    """
    if any("\t" in line[: len(line) - len(line.lstrip())] for line in lines):
        return _TAB
    for technical, plain in _PLAIN_WORDS.items():
        if technical in (problem or ""):
            return plain
    return f"not YAML: {problem}" if problem else "not YAML"
