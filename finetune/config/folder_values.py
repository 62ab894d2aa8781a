"""The types of values in a config that say how a folder is to be read, and their checks."""

import re
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, WithJsonSchema

from finetune.choices import SPLITS, FolderLayout, Split
from finetune.config.values import check_text

_LONGEST = 1_000  # characters of a pattern: no name of a file has more than 255


def _check_layout(value: Any) -> Any:
    if isinstance(value, str) and value in get_args(FolderLayout):
        return value
    if not isinstance(value, dict) or "train" not in value or not value.keys() <= set(SPLITS):
        raise ValueError(
            "expected auto, classes, groups, classes/groups, innermost, or the folder of each split such as "
            "{train: a, val: b}, with train, and val and test if they are there"
        )
    names = [str(name).strip().rstrip("/") for name in value.values()]
    if not all(isinstance(name, str) and _is_folder_name(name) for name in value.values()):
        raise ValueError(
            "expected the names of folders directly in data.path, in quotes where they look like numbers"
        )
    if len(set(names)) < len(names):
        raise ValueError("names one folder for two splits; an image may be in one split only")
    return value


def _is_folder_name(name: str) -> bool:
    plain = name.removeprefix("./").rstrip("/")
    return plain not in ("", ".", "..") and "/" not in plain and "\\" not in plain and "\0" not in plain


def _check_pattern(value: Any) -> str:
    text = check_text(value)
    if len(text) > _LONGEST:
        raise ValueError(f"expected a regular expression of at most {_LONGEST:,} characters")
    try:
        groups = re.compile(text).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"expected a regular expression: {error}") from None
    if groups != 1:
        raise ValueError(
            f"expected a regular expression with one group in ( ), which matches the class, not {groups}; "
            "write (?: ) for what only belongs together"
        )
    return text


FoldersOfLayout = Annotated[
    FolderLayout | dict[Split, str],
    BeforeValidator(_check_layout),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(get_args(FolderLayout))},
                {
                    "type": "object",
                    "properties": {split: {"type": "string", "minLength": 1} for split in SPLITS},
                    "required": ["train"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]

LabelPattern = Annotated[
    str, BeforeValidator(_check_pattern), WithJsonSchema({"type": "string", "minLength": 1})
]
