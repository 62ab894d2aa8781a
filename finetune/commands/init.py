"""The story of `finetune init`: look at a folder or table of images and write a config to begin with.

Only names and labels are looked at, no image is opened and torch is not loaded, so that it answers at once.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from os.path import isdir, isfile
from pathlib import Path

from finetune.commands.proposed_architecture import architecture_lines
from finetune.commands.survey import Survey, survey_data
from finetune.config.data import DataConfig
from finetune.config.load import parse_config
from finetune.config.overrides import key_parts, source_of, split_argument
from finetune.config.python_values import Override
from finetune.config.yaml_writer import write_value
from finetune.data.image_files import is_archive
from finetune.data.table import Columns, is_table
from finetune.errors import ConfigError, DataError
from finetune.machine.files import check_unused, reported_disk_errors, try_writing
from finetune.machine.hardware import has_gpu, usable_memory
from finetune.text import printable

SIZE_ON_CPU = 160
"""pixels; without a GPU, where time is what is short"""

_ENOUGH_TO_SEARCH = 200  # training images, for a learning rate by a race

READING = ("columns", "label_separator", "uncertain", "encoding", "image_folder", "layout", "label_pattern")
"""keys of `data` that say how it is to be read"""


def write_config(data: Path, target: Path, overrides: Sequence[str | Override] = ()) -> str:
    """Write a commented config for a folder or table of images; return what to say of both.

    Args:
        data: the folder or table.
        target: the file to write.
        overrides: how the data are to be read, where that cannot be seen: `data.columns.label=breed`.

    Raises:
        DataError: it does not look like a data set of at least two classes.
        ConfigError: `target` exists, or its folder does not; or the data are a config.
        ResourceError: it cannot be written.
    """
    check_target(target)
    refuse_config(data)
    survey = survey_data(data, read_options(data, overrides))
    text = config_text(data, target, survey)
    with reported_disk_errors(target), target.open("xb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    following = f"next: finetune train {shlex.quote(str(target))}"
    lines = [f"layout  {survey.layout.line()}", *(f"warning: {line}" for line in survey.warnings)]
    return "\n".join([*map(printable, lines), f"wrote {target} for {survey}; {following}"])


def refuse_config(path: Path) -> None:
    """Refuse a config where a data set is asked for.

    Raises:
        ConfigError: it is one; says how to train with it.
    """
    if path.suffix.lower() in (".yaml", ".yml") and isfile(path):
        with reported_disk_errors(path):
            text = path.read_text(encoding="utf-8", errors="replace")
        if re.search(r"^data\s*:", text, re.MULTILINE):
            raise ConfigError(f"{path} is a config already.\nTrain: finetune train {shlex.quote(str(path))}")


def check_target(target: Path) -> None:
    """Refuse a config that cannot be written, before the images are looked at.

    Raises:
        ConfigError: it exists, or its folder does not.
        ResourceError: it cannot be written.
    """
    check_unused(target)
    if not isdir(target.parent):
        raise ConfigError(f"{target}: there is no folder {target.parent}")
    try_writing(target)


def default_config(data: Path, overrides: Sequence[str | Override] = ()) -> str:
    """Return the text of the config that `write_config` writes for a folder or table of images.

    `overrides` that say how it is to be read are heeded; the others come to the config itself.

    Raises:
        DataError: it does not look like a data set of at least two classes, or can be read in two ways.
    """
    known = [override for override in overrides if about_reading(override)]
    try:
        given = read_options(data, known)
    except ConfigError:
        given = DataConfig(path=".")  # the check of the whole says what is wrong with them
    return config_text(data, Path(config_name(data)), survey_data(data, given))


def read_options(
    data: Path, overrides: Sequence[str | Override], *, command: str = "init", otherwise: str = ""
) -> DataConfig:
    """Return what overrides say of how data are to be read.

    `command` is who takes them, and `otherwise` what is to be done about others.

    Raises:
        ConfigError: they say something else, or nothing that can be.
    """
    for override in overrides:
        if isinstance(override, str):
            split_argument(override)  # refuses what is no key=value
    others = [source_of(override) for override in overrides if not about_reading(override)]
    if others:
        keys = ", ".join(f"data.{key}" for key in READING)
        otherwise = otherwise or "write other keys into the config"
        raise ConfigError(f"{others[0]}: {command} takes {keys}; {otherwise}")
    return parse_config("data: {path: .}", f"the config for {data}", overrides).data


def about_reading(override: str | Override) -> bool:
    """Tell whether an override says how data are to be read."""
    key = key_parts(override.partition("=")[0]) if isinstance(override, str) else list(override.key)
    return len(key) > 1 and key[0] == "data" and key[1] in READING


def config_name(data: Path) -> str:
    """Return the name of the config for some data: `photos.yaml` for `photos`, `photos.zip`, `photos.csv`."""
    data = data.resolve()
    return f"{data.stem if is_table(data) or is_archive(data) else data.name}.yaml"


def config_text(data: Path, target: Path, survey: Survey) -> str:
    """Write the config: every common key, with a line on what it does.

    Raises:
        DataError: the name of the data cannot be written in UTF-8.
    """
    try:
        str(data).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{str(data)!r}: the name is not UTF-8, so no config can hold it; rename it"
        ) from None
    frozen, unfrozen = _epochs(survey.n_train)
    keys = given_lines(survey) + label_line(survey) + column_lines(survey)
    return f"""\
# {survey}. Written by finetune init, to be changed at will.
# Read as {survey.layout.line()}.
# Run it with:  finetune train {write_value(str(target))}

seed: 42                      # decides everything random; another seed gives another run
data:
  path: {write_value(str(data))}
{f"  val: {write_value(survey.val)}":<29} # validation: a fraction of each class, or what holds it
{keys}{f"  batch_size: {batch_size_here(survey.n_train)}":<29} # images per step; less if memory runs out
  augment: standard           # none, light (digits, text), standard or strong (few images, many epochs)
{image_size_line()}model:
{architecture_lines()}  weights: default            # pretrained weights; none starts from random ones
  head: {{hidden: [512]}}       # widths of the head's hidden layers; [] is a linear probe
  layer_groups: 3             # parts with learning rates of their own
optimizer: {{name: adam, weight_decay: 0.01}}
stages:                       # first the new head alone, then everything, early layers slowest
{_frozen_stage(survey.n_train, frozen)}
  - {{name: unfrozen, train: all, epochs: {unfrozen}, lr: "slice(1e-5, 1e-3)"}}
"""


def label_line(survey: Survey) -> str:
    """Write what finds the classes of an image in a cell or a name; empty where that is plain."""
    known = set() if survey.given is None else survey.given.model_fields_set
    if survey.pattern is not None and "label_pattern" not in known:
        key = f"  label_pattern: '{survey.pattern}'"  # none of those proposed has a quote
        return f"{key:<29} # what stands in ( ) in the name of a file is its class\n"
    if survey.separator is None or "label_separator" in known:
        return ""
    key = f"  label_separator: {write_value(survey.separator)}"
    return f"{key:<29} # cells with several classes; without it each would be a class of its own\n"


def given_lines(survey: Survey) -> str:
    """Write what was said of how the data are to be read, but for the columns."""
    values = {} if survey.given is None else survey.given.model_dump(exclude_unset=True)
    keys = [key for key in READING if key in values and key != "columns"]
    return "".join(f"  {key}: {write_value(values[key])}\n" for key in keys)


def column_lines(survey: Survey) -> str:
    """Write the columns of a table that have no usual names, and as comments what others are good for."""
    found = found_columns(survey.columns)
    if survey.given is not None:
        found |= survey.given.columns.model_dump(exclude_unset=True)
    lines: list[str] = []
    columns: dict[str, str | list[str]] = {}
    if survey.group is not None:
        lines.append(
            "  # group: images that have it in common stay on one side of the split (no data leakage)"
        )
        columns["group"] = survey.group
    if names := [name for name in survey.unused if name]:
        lines.append("  # metadata that the model may use, if it is known of new images too")
        columns["metadata"] = names
    if columns:
        lines.append(f"  # columns: {{{_keys(found | columns)}}}")
    return "".join(f"{line}\n" for line in [*([f"  columns: {{{_keys(found)}}}"] if found else []), *lines])


def found_columns(columns: Columns) -> dict[str, str | list[str]]:
    """Return the columns of a table that were found by what they hold, by their keys in a config.

    Not those of 0 and 1 with one 1 in each row: named, they would be those of several classes an image.
    """
    label = list(columns.label) if isinstance(columns.label, tuple) else columns.label
    values = {"image": columns.image, "label": None if columns.one_class else label, "split": columns.split}
    return {role: value for role, value in values.items() if role in columns.found and value}


def _keys(columns: Mapping[str, str | list[str]]) -> str:
    return ", ".join(f"{key}: {write_value(value)}" for key, value in columns.items())


def image_size_line() -> str:
    """Write the side of the images: what the weights were made for, or on a CPU less.

    Small pictures are enlarged all the same: a network knows its weights' size of things (docs/recipe.md).
    """
    if has_gpu():
        return "  image_size: null            # pixels; null is what the pretrained weights were made for\n"
    key = f"  image_size: {SIZE_ON_CPU}"
    why = "null is what the weights were made for, and takes a CPU about twice as long"
    return f"{key:<29} # pixels; {why}\n"


def batch_size_here(n_train: int) -> int:
    """Choose as `batch_size_for`, and no more than fits into the memory of this machine."""
    memory = usable_memory()
    most = 64 if memory is None or memory >= 8 * 2**30 else 32 if memory >= 4 * 2**30 else 16
    return min(batch_size_for(n_train), most)


def batch_size_for(n_train: int) -> int:
    """Choose at least eight steps per epoch; fewer make a schedule of a few big jumps.

    But no fewer than eight images: the batch norm of the head knows too little of two or four.
    """
    return next((size for size in (64, 32, 16) if n_train >= 8 * size), 8)


def _epochs(n_train: int) -> tuple[int, int]:
    """Choose the epochs of the frozen and of the unfrozen stage: fewer images are seen more often."""
    if n_train < 1_000:
        return 3, 10
    return (1, 5) if n_train < 20_000 else (1, 3)


def _frozen_stage(n_train: int, epochs: int) -> str:
    """Write the frozen stage; a few validation images cannot tell which of two rates is better.

    Measured with 8 to 128 training images (docs/recipe.md, "Very few images").
    """
    rate, why = "auto", "found when training begins"
    if n_train < _ENOUGH_TO_SEARCH:
        rate, why = "0.003", "to have it found, auto needs more images"
    return f"{f'  - {{name: frozen, train: head, epochs: {epochs}, lr: {rate}}}':<55} # {why}"
