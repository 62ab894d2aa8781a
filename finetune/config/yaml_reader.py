"""Read YAML without guessing: the only place that imports `yaml`.

PyYAML's own loader turns `no` into False, `010` into 8, `12:30:45` into 45045, `1e-3` into text and 432
bytes of aliases into 100 GB. So only its parser is used: a stream of events with their positions, from which
the values are built here. Plain scalars follow YAML 1.2's core rules, strictly: decimal numbers, `true`,
`false`, `null`; everything else is text. A config needs no anchors, tags or deep nesting: refused.
"""

import json
import pathlib
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from finetune.config.near_paths import near_path
from finetune.config.yaml_errors import in_plain_words
from finetune.errors import ConfigError

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000
MAX_DEPTH = 16
AFTER_ALL_LINES = 2**31  # where the mistakes of arguments are listed

Path = tuple[str | int, ...]
"""Where a value stands: ("stages", 0, "lr")."""

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE)
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST_INT = 18  # digits; whatever is longer is a slip, and would not fit 64 bits


@dataclass(frozen=True)
class Mark:
    """Where a value comes from: a file and line, or an argument; and how it was written.

    `span` is where a scalar begins and ends in the text, its quotes included, counted in characters.
    """

    place: str
    written: str
    line: int
    span: tuple[int, int] | None


@dataclass
class Document:
    """Plain values, and for each the mark of what was written."""

    value: Any
    marks: dict[Path, Mark] = field(default_factory=dict)


def load_bytes(path: pathlib.Path) -> bytes:
    """Read a config file, but no more of it than tells `decode` that it is too large.

    Raises:
        ConfigError: no such file, or one that cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a FIFO would block for ever
            kind = "a folder; name a YAML file in it" if path.is_dir() else "not a regular file"
            raise ConfigError(f"{path}: this is {kind}")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        near, what = near_path(path), "config file" if path.suffix else "config file, or folder of images"
        advice = (
            f"did you mean {near}?" if near else "`finetune init FOLDER` writes one for a folder of images"
        )
        raise ConfigError(f"{path}: no such {what}; {advice}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot be read: {reason}") from None


def decode(raw: bytes, source: str) -> str:
    """Turn the bytes of a config file into text.

    Raises:
        ConfigError: too large, or not UTF-8 (a byte order mark is accepted).
    """
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{source}: {len(raw):,} bytes is no config; at most {MAX_BYTES:,} are read")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{source}:1:1: the file is UTF-16; save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise ConfigError(
            f"{source}:{line}:{column}: the byte 0x{raw[error.start]:02x} is not UTF-8; save it as UTF-8"
        ) from None


def read_yaml(text: str, source: str, *, lines: bool = True) -> Document:
    """Read one YAML document into plain values and their marks.

    Args:
        text: the YAML.
        source: what messages call it: the file's path, or `argument 'seed=1'`.
        lines: whether marks and messages add line and column (an argument has none).

    Raises:
        ConfigError: not YAML, more than one document, or YAML that is refused here (see the module).
    """
    reader = _Reader(text, source, lines)
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        line = text.count("\n", 0, forbidden.start())
        column = forbidden.start() - (text.rfind("\n", 0, forbidden.start()) + 1)
        raise reader.error(line, column, f"the character U+{ord(forbidden[0]):04X} cannot stand in YAML text")
    try:
        return reader.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        problem = in_plain_words(error.problem or error.context, text.splitlines()[line : line + 1])
        raise reader.error(line, column, problem) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {error}") from None


class _Reader:
    """Builds the values of one document from PyYAML's events."""

    def __init__(self, text: str, source: str, lines: bool) -> None:
        self.text, self.source, self.lines = text, source, lines
        self.events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self.marks: dict[Path, Mark] = {}
        self.nodes = 0

    def error(self, line: int, column: int, problem: str) -> ConfigError:
        place = f"{self.source}:{line + 1}:{column + 1}" if self.lines else self.source
        return ConfigError(f"{place}: {problem}")

    def error_at(self, event: yaml.Event, problem: str) -> ConfigError:
        return self.error(*_position(event), problem)

    def document(self) -> Document:
        """Read the whole stream."""
        next(self.events)  # stream start
        if isinstance(event := next(self.events), yaml.StreamEndEvent):
            return Document(None, {(): self.mark(0, event)})
        value = self.value(next(self.events), ())
        next(self.events)  # document end
        more = next(self.events)
        if not isinstance(more, yaml.StreamEndEvent):
            raise self.error_at(more, "a second document begins here; a config is a single document")
        return Document(value, self.marks)

    def mark(self, line: int, event: yaml.Event) -> Mark:
        if self.lines:
            return Mark(f"{self.source}:{line + 1}", _written(event), line + 1, _span(event))
        return Mark(self.source, _written(event), AFTER_ALL_LINES, _span(event))

    def value(self, event: yaml.Event, path: Path) -> Any:
        """Build the value that begins with `event`, and mark it."""
        self.check(event, path)
        self.marks.setdefault(path, self.mark(_position(event)[0], event))
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
                items.append(self.value(event, (*path, len(items))))
            return items
        assert isinstance(event, yaml.ScalarEvent)  # `check` has refused everything else
        return self.scalar(event)

    def check(self, event: yaml.Event, path: Path) -> None:
        """Refuse what a config does not need and an attacker does."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.error_at(event, f"more than {MAX_NODES:,} values; a config has a few dozen")
        if len(path) > MAX_DEPTH:
            raise self.error_at(event, f"nested more than {MAX_DEPTH} deep; a config is at most 4 deep")
        if isinstance(event, yaml.AliasEvent):
            raise self.error_at(event, f"the alias *{event.anchor} is not allowed; write it out, or quote it")
        if not isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent):
            raise self.error_at(event, "expected a value")
        if event.anchor is not None:
            raise self.error_at(event, f"the anchor &{event.anchor} is not allowed; remove it, or quote it")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise self.error_at(event, f"the tag {tag} is not allowed; remove it, or quote it")

    def mapping(self, path: Path) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        first: dict[str, int] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            self.check(event, path)
            if not isinstance(event, yaml.ScalarEvent):
                raise self.error_at(event, "a key must be a word, not a list or a mapping")
            self.scalar(event)
            key, line = event.value, _position(event)[0]
            if key == "<<" and event.style is None:
                raise self.error_at(event, "the merge key << is not allowed; write the values out")
            if key in first:
                where = f" (first on line {first[key] + 1})" if self.lines else ""
                raise self.error_at(event, f"the key {key!r} stands here a second time{where}; remove one")
            first[key] = line
            value = next(self.events)
            self.marks[(*path, key)] = self.mark(line, value)
            mapping[key] = self.value(value, (*path, key))
        return mapping

    def scalar(self, event: yaml.ScalarEvent) -> Any:
        """Return a scalar its type: text if quoted, else what it plainly is."""
        text: str = event.value
        surrogate = re.search("[\ud800-\udfff]", text)
        if surrogate:
            raise self.error_at(event, f"the character U+{ord(surrogate[0]):04X} is not text on its own")
        if event.style is not None:
            return text
        if text in ("", "~", "null"):
            return None
        if text in ("true", "false"):
            return text == "true"
        if _INT.fullmatch(text):
            digits = len(text.lstrip("+-"))
            if digits > _LONGEST_INT:
                raise self.error_at(event, f"a number of {digits:,} digits; at most {_LONGEST_INT} are read")
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        if _NOT_FINITE.fullmatch(text):
            return float(text.replace(".", ""))
        return text


def _position(event: yaml.Event) -> tuple[int, int]:
    """Return an event's line and column, both from 0."""
    assert event.start_mark is not None  # all parsed events have one
    return event.start_mark.line, event.start_mark.column


def _span(event: yaml.Event) -> tuple[int, int] | None:
    """Return where a scalar begins and ends; of a list or a mapping, an event knows only the beginning."""
    if not isinstance(event, yaml.ScalarEvent):
        return None
    assert event.start_mark is not None
    assert event.end_mark is not None  # all parsed events have both
    return event.start_mark.index, event.end_mark.index


def _written(event: yaml.Event) -> str:
    """Show a value as it was written, shortened; how a list or a mapping is called."""
    if isinstance(event, yaml.MappingStartEvent):
        return "a mapping"
    if isinstance(event, yaml.SequenceStartEvent):
        return "a list"
    if not isinstance(event, yaml.ScalarEvent):
        return "nothing"
    if event.style is None:
        return shown(event.value) or "nothing"
    text = shown(event.value)
    return text if text.startswith('"') else json.dumps(text, ensure_ascii=False)


def shown(text: str) -> str:
    """Make text fit for a message: short, and nothing in it that moves a terminal's cursor."""
    text = text if len(text) <= 60 else text[:57] + "..."
    return text if text.isprintable() else json.dumps(text)
