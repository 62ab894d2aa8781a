"""The types of values in a config that are about columns of a table, and their checks."""

import codecs
from collections.abc import Iterable
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, WithJsonSchema

from finetune.choices import AUTO_ENCODING, Kind
from finetune.config.values import check_text, is_whole

_WIDEST = 4096


def _check_metadata(value: Any) -> dict[str, Kind]:
    kinds = dict.fromkeys(value, "auto") if isinstance(value, list | tuple) and _are_names(value) else value
    if (
        isinstance(kinds, dict)
        and _are_names(kinds)
        and all(kind in get_args(Kind) for kind in kinds.values())
    ):
        if len(kinds) == len(value):
            return kinds
        raise ValueError("names a column twice")
    raise ValueError(
        "expected a list of column names such as [site, age], or {site: category, age: number}; names in "
        "quotes where they look like something else"
    )


def _check_widths(value: Any) -> int | dict[str, int] | None:
    widths = value.values() if isinstance(value, dict) and _are_names(value) else [value]
    if value is None or all(is_whole(width) and 1 <= width <= _WIDEST for width in widths):
        return value  # type: ignore[no-any-return]
    raise ValueError(f"expected null, a width from 1 to {_WIDEST}, or widths by column such as {{site: 4}}")


def _are_names(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) and value.strip() for value in values)


def _check_label_columns(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return check_text(value)
    if not isinstance(value, list | tuple) or not _are_names(value):
        raise ValueError("expected the name of a column, or a list of columns, one for each class")
    if len(value) < 2 or len(set(value)) < len(value):
        raise ValueError("expected at least two columns, one for each class, and none of them twice")
    return tuple(value)


def _check_separator(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError('expected what stands between the names of classes, for instance ";"')


def _check_encoding(value: Any) -> str:
    if isinstance(value, str):
        if value == AUTO_ENCODING:
            return value
        try:
            if b"a,1\n".decode(value) == "a,1\n" or "a,1\n".encode(value).decode(value) == "a,1\n":
                return codecs.lookup(value).name
        except (LookupError, UnicodeError, ValueError):
            pass
    raise ValueError("expected auto, or an encoding that Python knows, for instance cp1252 or utf-16-le")


MetadataColumns = Annotated[
    dict[str, Kind],
    BeforeValidator(_check_metadata),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string", "minLength": 1}, "uniqueItems": True},
                {"type": "object", "additionalProperties": {"enum": list(get_args(Kind))}},
            ]
        }
    ),
]

EmbeddingWidths = Annotated[
    int | dict[str, int] | None,
    BeforeValidator(_check_widths),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "null"},
                {"type": "integer", "minimum": 1, "maximum": _WIDEST},
                {
                    "type": "object",
                    "additionalProperties": {"type": "integer", "minimum": 1, "maximum": _WIDEST},
                },
            ]
        }
    ),
]

LabelColumns = Annotated[
    str | tuple[str, ...],
    BeforeValidator(_check_label_columns),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1},
                    "minItems": 2,
                    "uniqueItems": True,
                },
            ]
        }
    ),
]

Encoding = Annotated[
    str, BeforeValidator(_check_encoding), WithJsonSchema({"type": "string", "minLength": 1})
]

Separator = Annotated[
    str, BeforeValidator(_check_separator), WithJsonSchema({"type": "string", "minLength": 1})
]
