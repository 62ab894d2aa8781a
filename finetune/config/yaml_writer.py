"""Write a config as YAML that the strict reader reads back to the same config."""

import json
import re
from typing import Any

from finetune.config.config import Config

_PLAIN_TEXT = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+-]*")
_FORBIDDEN_IN_QUOTES = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_WORDS_WITH_MEANING = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def dump_config(config: Config) -> str:
    """Write a config out with every default, in the order of the vocabulary."""
    return "".join(f"{line}\n" for line in _lines(config.model_dump(mode="python"), ""))


def write_value(value: Any) -> str:
    """Write one value on one line.

    Text is quoted unless every YAML reader reads it as text, also one that reads `no` as false.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _write_number(value)
    if isinstance(value, str):
        return _write_text(value)
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{_write_text(key)}: {write_value(item)}" for key, item in value.items()) + "}"
        )
    return "[" + ", ".join(write_value(item) for item in value) + "]"


def _write_number(value: float) -> str:
    text = repr(value)
    if "e" in text and "." not in text:  # 1e-05: YAML 1.1 readers read it as text
        text = text.replace("e", ".0e")
    return text


def _write_text(text: str) -> str:
    number_like = re.fullmatch(r"[.]?[0-9].*|\.(inf|nan)", text, re.IGNORECASE)
    if _PLAIN_TEXT.fullmatch(text) and not number_like and text.lower() not in _WORDS_WITH_MEANING:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    # What YAML reads as a line break or forbids even in quotes is escaped, as JSON does for ASCII controls.
    return re.sub(
        "[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda match: f"\\u{ord(match[0]):04x}", quoted
    )


def _lines(mapping: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{_write_text(key)}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            lines += [f"{indent}{key}:", *(f"{indent}  - {write_value(item)}" for item in value)]
        else:
            lines.append(f"{indent}{_write_text(key)}: {write_value(value)}")
    return lines
