"""Say what is wrong with a config: pydantic's errors as sentences, each with its file and line."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from finetune.config.docstrings import key_docstrings
from finetune.config.keys import dotted, fields_at, key_paths, section_at
from finetune.config.yaml_reader import AFTER_ALL_LINES, Document, Mark, Path
from finetune.text import counted

MAX_LINES = 20
_IN_FULL = 3 * MAX_LINES  # mistakes that may be shown, with some that are said on one line

# Values of drafts of 0.1.0, as runs have them in their config.yaml.
_RENAMED = {"frozen": "still"}

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number less than {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "too_long": "a list of at most {max_length}",
}


Mistake = tuple[tuple[int, int], str]
"""Where it stands among others, the line of the file and then the number of the argument; its message."""


def describe(
    error: ValidationError, config: type[BaseModel], document: Document, sources: Sequence[str] = ()
) -> list[Mistake]:
    """Return every mistake that the check of a document has found.

    Args:
        error: what the check has raised.
        config: the class that it was checked against.
        document: what was checked.
        sources: what messages call the arguments, in the order given.
    """
    names, marks = stage_names(document.value), document.marks
    problems: list[tuple[Path, str]] = []
    details = sorted(error.errors(include_url=False), key=lambda detail: _mark(detail["loc"], marks).line)
    for number, detail in enumerate(details):
        if (
            number > _IN_FULL and detail["type"] == "extra_forbidden"
        ):  # only counted; a guess for each takes long
            problems.append((detail["loc"], "unknown key"))
        else:
            problems += _problems(detail, config, marks)
    found = []
    for path, text in problems:
        mark = _mark(path, marks)
        argument = sources.index(mark.place) if mark.place in sources else 0
        key = dotted(path, names)
        found.append(((mark.line, argument), f"{mark.place}{' ' * bool(path)}{key}: {text}"))
    return found


def argument_mistake(number: int, message: str) -> Mistake:
    """Return the mistake of an argument that could not be applied; arguments are counted from 0."""
    return (AFTER_ALL_LINES, number), message


def in_order(mistakes: Sequence[Mistake]) -> str:
    """Return a line per mistake: first those of the file, by line, then those of arguments, as given."""
    lines = list(dict.fromkeys(text for _, text in sorted(mistakes, key=lambda mistake: mistake[0])))
    more = [f"and {counted(len(lines) - MAX_LINES, 'more mistake')}"] if len(lines) > MAX_LINES else []
    return "\n".join(lines[:MAX_LINES] + more)


def stage_names(values: object) -> dict[int, str]:
    """Return the names of stages by position, as far as each is a name and that of one stage only."""
    stages = values.get("stages") if isinstance(values, Mapping) else None
    items = stages if isinstance(stages, list) else []
    given = [item.get("name") if isinstance(item, Mapping) else None for item in items]
    names = {
        number: name
        for number, name in enumerate(given)
        if isinstance(name, str) and re.fullmatch("[a-z0-9_-]{1,64}", name) and not name.isdigit()
    }
    counts = Counter(names.values())
    return {number: name for number, name in names.items() if counts[name] == 1}


def _mark(path: Path, marks: Mapping[Path, Mark]) -> Mark:
    """Find where a value was written, or what it would stand in."""
    while path not in marks and path:
        path = path[:-1]
    return marks[path]


def _problems(
    detail: ErrorDetails, config: type[BaseModel], marks: Mapping[Path, Mark]
) -> list[tuple[Path, str]]:
    path: Path = detail["loc"]
    kind, context = detail["type"], detail.get("ctx", {})
    got = marks[path].written if path in marks else "nothing"
    if kind == "default_factory_not_called":  # a default that follows from a value which is wrong itself
        return []
    if kind in ("stages_disagree", "sections_disagree"):
        return [((*path, *where), text) for where, text in context["problems"]]
    if kind == "missing" and isinstance(path[-1], int):
        length = _length(config, path[:-1])
        return [(path[:-1], f"expected a list of {length} numbers, got {len(detail['input'])}")]
    if kind == "missing":
        return [(place, f"is missing; {_purpose(config, place)}") for place in _required(config, path)]
    if kind == "extra_forbidden":
        return [(path, _unknown_key(config, path))]
    if kind == "model_type":
        keys = ", ".join(fields_at(config, path))
        return [(path, f"expected a mapping with keys from {keys}; got {got}")]
    if kind == "literal_error":
        return [(path, _wrong_choice(str(detail["input"]), context["expected"], got))]
    if kind == "value_error":
        return [(path, _with_value(str(context["error"]), got))]
    if kind in _EXPECTED:
        return [(path, f"expected {_EXPECTED[kind].format(**context)}, got {got}{_quote_hint(kind, detail)}")]
    return [(path, f"{detail['msg']}, got {got}")]


def _with_value(text: str, got: str) -> str:
    """Put the value into a text that says what was expected; leave a text that names it already."""
    if not text.startswith("expected"):
        return text
    expected, semicolon, advice = text.partition(";")
    return f"{expected}, got {got}{semicolon}{advice}"


def _quote_hint(kind: str, detail: ErrorDetails) -> str:
    value = detail["input"]
    numeric = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", value, re.IGNORECASE)
    if not (numeric and kind in ("int_type", "float_type")):
        return ""
    return "; write it without quotes and leading zeros"


def _wrong_choice(value: str, expected: str, got: str) -> str:
    choices = re.findall(r"'([^']*)'", expected)
    near = get_close_matches(value.lower(), choices, n=1)
    if (now := _RENAMED.get(value)) in choices:
        return f"{value} is called {now} now"
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"expected one of {', '.join(choices)}; got {got}{hint}"


def _unknown_key(config: type[BaseModel], path: Path) -> str:
    key, keys = str(path[-1]), list(fields_at(config, path[:-1]))
    near = get_close_matches(key.lower().replace("-", "_"), keys, n=1)
    if near:
        return f"unknown key; did you mean {near[0]!r}?"
    elsewhere = [place for place in key_paths(config) if place[-1] == key]
    if elsewhere:
        return f"unknown key here; it belongs to {' or '.join(map(dotted, elsewhere))}"
    where = f"of {dotted(path[:-1])}" if len(path) > 1 else "at the top"
    return f"unknown key; the keys {where} are {', '.join(keys)}"


def _purpose(config: type[BaseModel], path: Path) -> str:
    """Return the first sentence of a field's documentation."""
    description = key_docstrings(section_at(config, path[:-1])).get(str(path[-1]), "")
    first = re.split(r"(?<=[.;:])\s", " ".join(description.split()), maxsplit=1)[0]
    return f"expected: {first.rstrip('.;:')}"


def _required(config: type[BaseModel], path: Path) -> list[Path]:
    """Return what is missing with a key: what a missing section must hold, or the key itself."""
    section = fields_at(config, path[:-1])[str(path[-1])].annotation
    if not (isinstance(section, type) and issubclass(section, BaseModel)):
        return [path]
    return [(*path, name) for name, field in section.model_fields.items() if field.is_required()]


def _length(config: type[BaseModel], path: Path) -> int:
    return len(get_args(fields_at(config, path[:-1])[str(path[-1])].annotation))
