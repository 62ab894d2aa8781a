"""The types of single values in a config, and the checks that a plain type cannot express.

Each check says what was expected; where the value stands and what was found is added by `config.problems`.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)

from finetune.choices import TABLE_SUFFIXES, TrainedPart
from finetune.optim.learning_rates import LearningRate, check_bounds, parse_lr

LARGEST = 2**31 - 1
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Momentum = Annotated[float, Field(ge=0, le=0.9999)]
"""Weight of the past in a mean; beyond, a mean reaches back over more steps than most trainings have."""
Dropped = Annotated[float, Field(ge=0, le=0.95)]
"""Fraction of inputs that are dropped; beyond, next to nothing is left to learn from."""
ImageSize = Annotated[int, Field(ge=8, le=4096)]
"""Side of a square image in pixels."""

_LEAST_VAL = 0.001
_MOST_DROPOUT = 0.95
_MOST_WORKERS = 256

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_STAGE_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_DURATION = re.compile(r"([1-9][0-9]{0,5})(s|min|h)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}
_QUOTED_FRACTION = re.compile(r"[01]?[.,][0-9]+|[0-9]+([.,][0-9]+)?\s*%")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """Tell whether a value is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _check_lr(value: Any) -> LearningRate:
    if isinstance(value, LearningRate):
        return check_bounds(value)
    if not (_is_number(value) or isinstance(value, str)):
        raise ValueError("expected a rate such as 1e-3, slice(1e-3), slice(1e-5, 1e-3) or auto")
    try:
        return parse_lr(value)
    except OverflowError:
        raise ValueError("expected a rate that fits a floating-point number") from None


class FoldConfig(BaseModel):
    """One part of a cross-validation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    fold: int
    of: int


def _check_val(value: Any) -> float | str | dict[str, int] | FoldConfig:
    if isinstance(value, FoldConfig):
        return value
    if isinstance(value, dict):
        return _check_fold(value)
    if _is_number(value):
        if not 0 < value < 1:
            raise ValueError("a validation fraction must lie between 0 and 1, for instance 0.2")
        if not _LEAST_VAL <= value <= 1 - _LEAST_VAL:
            raise ValueError(f"expected a fraction from {_LEAST_VAL:g} to {1 - _LEAST_VAL:g}")
        return float(value)
    if isinstance(value, str) and value.lower().endswith(TABLE_SUFFIXES):
        return value
    if not isinstance(value, str) or value in ("", ".", "..") or "/" in value or "\\" in value:
        raise ValueError(
            "expected auto, a fraction such as 0.2, {fold: 1, of: 5}, the name of a folder inside data.path, "
            "or a table that says what each image is for"
        )
    if _QUOTED_FRACTION.fullmatch(value):
        raise ValueError("expected a fraction such as 0.2, a plain number without quotes or %")
    return value


def _check_fold(value: dict[str, Any]) -> dict[str, int]:
    match value:
        case {"fold": fold, "of": of, **other} if not other and is_whole(fold) and is_whole(of):
            if 1 <= fold <= of and 2 <= of <= 1000:
                return value
    raise ValueError("expected {fold: N, of: M} with whole numbers, M from 2 to 1000 and N from 1 to M")


def _check_workers(value: Any) -> int | str:
    if value == "auto" or (is_whole(value) and 0 <= value <= _MOST_WORKERS):
        return value  # type: ignore[no-any-return]
    raise ValueError(f"expected auto or a whole number from 0 to {_MOST_WORKERS}")


def _check_views(value: Any) -> int | str | None:
    if value in ("eval", None) or (is_whole(value) and 1 <= value <= 100_000):
        return value  # type: ignore[no-any-return]
    raise ValueError("expected eval, null or a whole number from 1 to 100000")


def _check_train(value: Any) -> int | str:
    if value in ("head", "all") or (is_whole(value) and 1 <= value <= LARGEST):
        return value  # type: ignore[no-any-return]
    raise ValueError("expected head, all, or a number of last layer groups (a whole number from 1)")


def _check_dropout(value: Any) -> float | tuple[float, ...]:
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    if not all(_is_number(number) and 0 <= number < 1 for number in numbers):
        raise ValueError("expected one number from 0 up to but not including 1, or a list of them")
    if max(numbers, default=0) > _MOST_DROPOUT:
        raise ValueError(f"expected at most {_MOST_DROPOUT:g}; beyond, next to nothing is left to learn from")
    return tuple(float(number) for number in numbers) if isinstance(value, list | tuple) else float(value)


def _check_colour(value: Any) -> str:
    if isinstance(value, str) and _COLOUR.fullmatch(value):
        return value
    raise ValueError('expected a colour such as "#ffffff"; put it in quotes, a bare # starts a comment')


def _check_stage_name(value: Any) -> str:
    if isinstance(value, str) and _STAGE_NAME.fullmatch(value):
        return value
    raise ValueError("expected a name of 1 to 64 characters from a-z, 0-9, _ and -")


def _check_interval(value: Any) -> int | str | None:
    if value is None or (is_whole(value) and 1 <= value <= LARGEST):
        return value  # type: ignore[no-any-return]
    if isinstance(value, str) and _DURATION.fullmatch(value):
        return value
    raise ValueError("expected a time such as 30s, 10min or 1h, a number of steps, or null")


def seconds_of(duration: str) -> float:
    """Return the seconds of a duration such as `30s`, `10min` or `1h`."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise ValueError(f"{duration!r} is not a duration")
    return float(match[1]) * _SECONDS[match[2]]


def check_text(value: Any) -> str:
    """Return a value that is text and no blank."""
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError(
        "expected text" + ("" if isinstance(value, str) else "; put it in quotes if it is a name")
    )


Text = Annotated[str, BeforeValidator(check_text), WithJsonSchema({"type": "string", "minLength": 1})]


StageName = Annotated[
    str,
    BeforeValidator(_check_stage_name),
    WithJsonSchema({"type": "string", "pattern": "^[a-z0-9_-]{1,64}$"}),
]

Colour = Annotated[
    str, BeforeValidator(_check_colour), WithJsonSchema({"type": "string", "pattern": "^#[0-9a-fA-F]{6}$"})
]

# The validator is a plain one: pydantic would look into the dataclass, and accept a mapping as a rate.
Rate = Annotated[
    LearningRate,
    PlainValidator(_check_lr),
    PlainSerializer(lambda rate: rate.written, return_type=float | str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"const": "auto"},
                {"type": "string", "pattern": r"^\s*slice\([^,()]+(,[^,()]+)?\)\s*$"},
            ]
        }
    ),
]

Validation = Annotated[
    float | str | FoldConfig,
    BeforeValidator(_check_val),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": _LEAST_VAL, "maximum": 1 - _LEAST_VAL},
                {"type": "string", "minLength": 1},
                {
                    "type": "object",
                    "properties": {
                        "fold": {"type": "integer", "minimum": 1},
                        "of": {"type": "integer", "minimum": 2},
                    },
                    "required": ["fold", "of"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]

Workers = Annotated[
    int | Literal["auto"],
    BeforeValidator(_check_workers),
    WithJsonSchema(
        {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 0, "maximum": _MOST_WORKERS}]}
    ),
]

Views = Annotated[
    int | Literal["eval"] | None,
    BeforeValidator(_check_views),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "eval"},
                {"type": "integer", "minimum": 1, "maximum": 100_000},
                {"type": "null"},
            ]
        }
    ),
]

Interval = Annotated[
    int | str | None,
    BeforeValidator(_check_interval),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": "^[1-9][0-9]{0,5}(s|min|h)$"},
                {"type": "null"},
            ]
        }
    ),
]

TrainedGroups = Annotated[
    int | TrainedPart,
    BeforeValidator(_check_train),
    WithJsonSchema({"anyOf": [{"enum": ["head", "all"]}, {"type": "integer", "minimum": 1}]}),
]

_DROPOUT_SCHEMA = {"type": "number", "minimum": 0, "maximum": _MOST_DROPOUT}

Dropout = Annotated[
    float | tuple[float, ...],
    BeforeValidator(_check_dropout),
    WithJsonSchema({"anyOf": [_DROPOUT_SCHEMA, {"type": "array", "items": _DROPOUT_SCHEMA}]}),
]
