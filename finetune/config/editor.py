"""Change one value of a config file, and leave the rest as its author wrote it."""

import codecs
import stat
from pathlib import Path

from finetune.config.keys import dotted
from finetune.config.overrides import unnamed_stages
from finetune.config.problems import stage_names
from finetune.config.sections import StageConfig
from finetune.config.yaml_reader import Document, decode, load_bytes, read_yaml, shown
from finetune.config.yaml_writer import write_value
from finetune.errors import ConfigError
from finetune.machine.files import reported_disk_errors, try_writing, write_bytes

_BLANK = " \r\n\x85\u2028\u2029"  # a space, and what PyYAML reads as the end of a line


def write_stage_lr(path: Path, stage: str, lr: float | str) -> None:
    """Put a learning rate into the `lr` of a stage in a config file; all else stays byte for byte.

    The file is read anew, as it may have changed since it was loaded. Its permission bits stay, and so does
    a symbolic link: what it leads to is written.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or has no place for the rate of this stage.
        ResourceError: the file cannot be written; it is as it was.
    """
    raw, source = load_bytes(path), str(path)
    text = decode(raw, source)
    document = read_yaml(text, source)
    index = _find_stage(document, source, stage, lr)
    start, end = _find_lr(document, index, lr)
    document.value["stages"][index]["lr"] = lr
    replace_text(path, raw, with_value(text, (start, end), write_value(lr)), document.value)


def check_stage_lr(path: Path, stage: str) -> None:
    """Make sure that `write_stage_lr` can do its work, before minutes are spent on finding a rate.

    Raises:
        ConfigError: as `write_stage_lr`.
        ResourceError: as `write_stage_lr`.
    """
    document = read_yaml(decode(load_bytes(path), str(path)), str(path))
    _find_lr(document, _find_stage(document, str(path), stage, "auto"), "auto")
    check_replaceable(path)


def check_replaceable(path: Path) -> None:
    """Refuse a file that `replace_text` could not write.

    Raises:
        ResourceError: it cannot be written.
    """
    with reported_disk_errors(path):
        _refuse_protected(path.resolve())
    try_writing(path.resolve())


def with_value(text: str, span: tuple[int, int], value: str) -> str:
    """Return a text with a value in the place of the scalar that stands at `span`."""
    start, end = span
    before, old, after = text[:start], text[start:end], text[end:]
    gap = " " if old[-1] in "\"'" and after.startswith("#") else ""  # a number may not touch a comment
    return before + _in_place_of(old, value) + gap + after


def replace_text(path: Path, raw: bytes, text: str, expected: object) -> None:
    """Write a config file anew, after making sure that it says what is expected.

    `raw` is what it holds so far. Its permission bits stay, and so does a symbolic link.

    Raises:
        ResourceError: the file cannot be written; it is as it was.
    """
    content = (codecs.BOM_UTF8 if raw.startswith(codecs.BOM_UTF8) else b"") + text.encode()
    _check(content, str(path), expected)
    _overwrite(path, content)


def _find_stage(document: Document, source: str, stage: str, lr: float | str) -> int:
    """Return the index of a stage in the file itself; it may have come from the defaults or an override."""
    stages = document.value.get("stages") if isinstance(document.value, dict) else None
    items = stages if isinstance(stages, list) else []
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if names.count(stage) == 1:
        return names.index(stage)
    advice = "Write it by hand, or give the rate on the command line: "
    advice += f"stages.{stage}.lr={write_value(lr)}"  # its quotes are good for YAML and for a shell
    if names:
        place, found = document.marks[("stages",)].place, ", ".join(shown(str(name)) for name in names)
        problem = f"{place} stages: --write needs one stage named {stage} in the file, found {found}"
        raise ConfigError(f"{problem}.\n{advice}")
    defaults = {default.name: default for default in unnamed_stages(document.value)}
    if stage in defaults:
        defaults[stage] = StageConfig.model_validate({**defaults[stage].model_dump(), "lr": lr})
        written = [default.model_dump(exclude_defaults=True) for default in defaults.values()]
        advice = f"Add them: stages: {write_value(written)}"
    problem = f"{source}: it has no stages, so --write has no place for the rate of stage {stage}"
    raise ConfigError(f"{problem}.\n{advice}")


def _find_lr(document: Document, index: int, lr: float | str) -> tuple[int, int]:
    """Return the span of the rate of a stage in the text."""
    path = ("stages", index, "lr")
    mark = document.marks.get(path, document.marks[path[:-1]])
    start, end = mark.span or (0, 0)
    if start == end:  # not there, nothing behind the colon, or a list
        key = dotted(path, stage_names(document.value))
        problem = f"{mark.place} {key}: there is no value that --write could replace"
        raise ConfigError(f"{problem}.\nWrite it by hand: lr: {write_value(lr)}")
    return start, end


def _in_place_of(old: str, value: str) -> str:
    """Write a value where another stood; the comment and the blank lines of a block scalar (`|`) stay."""
    if old[0] not in "|>":
        return value
    header = old.splitlines()[0].rstrip(_BLANK).lstrip("|>+-0123456789")
    return value + header + old[len(old.rstrip(_BLANK)) :]


def _check(content: bytes, source: str, expected: object) -> None:
    """Make sure, before anything is written, that the new file says what it should."""
    text = decode(content, source)
    try:
        found = repr(read_yaml(text, source).value)  # in text NaN equals NaN, and 1 is not 1.0
    except ConfigError as error:
        found = str(error)
    if found != repr(expected):
        raise RuntimeError(f"{source} stays as it is: the new file would say {found}, not {expected!r}")


def _overwrite(path: Path, content: bytes) -> None:
    """Write a file atomically, through symbolic links, and keep its permission bits."""
    target = path.resolve()
    with reported_disk_errors(path):
        mode = stat.S_IMODE(target.stat().st_mode)
        _refuse_protected(target)
        write_bytes(target, content)
        target.chmod(mode)


def _refuse_protected(path: Path) -> None:
    """Fail on a file that is protected from writing: a rename would replace it all the same."""
    path.open("r+b").close()
