import contextlib
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from finetune.config.config import Config
from finetune.config.data import DataConfig
from finetune.config.load import load_config, parse_config
from finetune.config.sections import StageConfig
from finetune.config.yaml_reader import MAX_BYTES, read_yaml
from finetune.config.yaml_writer import dump_config, write_value
from finetune.errors import ConfigError
from finetune.optim.learning_rates import LearningRate

PETS = """\
data:
  path: photos
stages:
  - {name: frozen, train: head, epochs: 1, lr: 1e-3}
  - name: unfrozen
    train: all
    epochs: 4
    lr: slice(1e-5, 1e-3)
"""


def mistakes(text: str, *overrides: str) -> list[str]:
    """Return the lines of the error that a config ends in."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "pets.yaml", overrides)
    return str(caught.value).split("\n")


def outcome(text: str, *overrides: str) -> Config | str:
    """Return the config, or the message that a user sees; let everything else through."""
    try:
        return parse_config(text, "pets.yaml", overrides)
    except ConfigError as error:
        return str(error)


# What plain values mean


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *[("1e-3", 1e-3), ("5e-4", 5e-4), ("1E-2", 1e-2), ("1e3", 1e3), ("1.0e-3", 1e-3), ("1e+2", 100.0)],
        *[("3.10", 3.1), (".5", 0.5), ("1.", 1.0), ("-0.0", 0.0), ("7", 7), ("-7", -7), ("+7", 7), ("0", 0)],
        *[("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("NO", "NO"), ("y", "y")],
        *[("true", True), ("false", False), ("True", "True"), ("FALSE", "FALSE")],
        *[("010", "010"), ("0777", "0777"), ("0x1F", "0x1F"), ("0o17", "0o17"), ("0b1", "0b1")],
        *[("12:30:45", "12:30:45"), ("2024-01-01", "2024-01-01"), ("1_000", "1_000"), ("1,000", "1,000")],
        *[("null", None), ("~", None), ("", None), ("Null", "Null"), ("none", "none"), ("=", "=")],
        *[("'3'", "3"), ('"1e-3"', "1e-3"), ("'true'", "true"), ("'null'", "null"), ("''", "")],
        *[("e5", "e5"), ("1e", "1e"), ("1.2.3", "1.2.3"), ("٣", "٣"), ("inf", "inf"), ("nan", "nan")],
    ],
)
def test_a_plain_value_is_never_guessed(written: str, value: object):
    read = read_yaml(f"key: {written}", "x").value["key"]
    assert read == value
    assert type(read) is type(value)


def test_a_list_of_class_like_words_stays_text():
    assert read_yaml("[yes, no, on, off]", "x").value == ["yes", "no", "on", "off"]


# Mistakes in YAML: file, line and column


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2", "2:1: the key 'seed' stands here a second time (first on line 1); remove one"),
        ("", "1: the file is empty; a config is a mapping, at the least `data: {path: FOLDER}`"),
        (
            "# only words\n",
            "1: the file is empty; a config is a mapping, at the least `data: {path: FOLDER}`",
        ),
        ("null", "1: the file is empty; a config is a mapping, at the least `data: {path: FOLDER}`"),
        ("[1]", "1: found a list; a config is a mapping, at the least `data: {path: FOLDER}`"),
        ("\nphotos", "2: found photos; a config is a mapping, at the least `data: {path: FOLDER}`"),
        ("a: 1\n---\na: 2", "2:1: a second document begins here; a config is a single document"),
        ("a: &x 1\nb: *x", "1:4: the anchor &x is not allowed; remove it, or quote it"),
        ("a: *x", "1:4: the alias *x is not allowed; write it out, or quote it"),
        ("&a [*a]", "1:1: the anchor &a is not allowed; remove it, or quote it"),
        ("a: 1\n<<: {b: 1}", "2:1: the merge key << is not allowed; write the values out"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "1:4: the tag !!python/object/apply:os.system is not allowed",
        ),
        ("a: !!str 1", "1:4: the tag !!str is not allowed; remove it, or quote it"),
        ("a: !mine 1", "1:4: the tag !mine is not allowed; remove it, or quote it"),
        ("? [a]\n: 1", "1:3: a key must be a word, not a list or a mapping"),
        ("[" * 20_000, "1:18: nested more than 16 deep"),
        ("- " * 100_000, "1:35: nested more than 16 deep"),
        ("{a: " * 20_000, "nested more than 16 deep"),
        ("a: [" + "1," * 20_001 + "]", "more than 20,000 values; a config has a few dozen"),
        ("a: " + "9" * 5000, "1:4: a number of 5,000 digits; at most 18 are read"),
        ("a: 1\nb: \0", "2:4: the character U+0000 cannot stand in YAML text"),
        ("a: \x1b[31m", "1:4: the character U+001B cannot stand in YAML text"),
        ('a: "\\ud800"', "1:4: the character U+D800 is not text on its own"),
        ('"\\udfff": 1', "1:1: the character U+DFFF is not text on its own"),
        ("data:\n\tpath: x", "2:1: a tab; indent with spaces"),
        ("a: 1\n\tb: 2", "2:1: a tab; indent with spaces"),
        ("data:\n  path: x\n val: 1", "3:2: the indentation does not match the lines above"),
        ("a: b: c", "1:5: a colon cannot stand here; check the indentation, or quote text"),
        ("a: 1\nb\nc: 2", "a key without a colon; write `key: value`"),
        ("a: [1, 2\nb: 1", "a list that is not closed; a comma or ] is missing"),
        ("a: {b: 1\nc: [", "a mapping that is not closed; a comma or } is missing"),
        ("a: 'b", "1:6: a quoted text that is not closed; a quote is missing"),
        ('a: "C:\\photos"', "1:8: a backslash in double quotes; use single quotes"),
        ('a: "C:\\Users"', "1:9: a backslash in double quotes; use single quotes"),
        ("a: [", "1:5: a value is missing here, or a bracket is not closed"),
        ("a: *.jpg", "& and * have a meaning in YAML; quote the text"),
        ("a: @home", "1:4: @, ` and % have a meaning in YAML; quote the text"),
    ],
)
def test_bad_yaml_is_refused_with_its_place_in_plain_words(text: str, message: str):
    (line,) = mistakes(text)
    assert line.startswith("pets.yaml:")
    assert message in line


@pytest.mark.parametrize(
    "bomb",
    [
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)),
        "a: &a {x: 1}\n"
        + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{','.join([f'*{chr(97 + i)}'] * 9)}]}}\n" for i in range(9)
        ),
    ],
    ids=["aliases", "merges"],
)
def test_a_bomb_is_refused_at_once(bomb: str):
    start = time.process_time()
    assert "the anchor &a is not allowed" in mistakes(bomb)[0]
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"data: {path: \xe9t\xe9}", r":1:14: the byte 0xe9 is not UTF-8; save it as UTF-8"),
        (b"seed: 1\ndata: {path: \xff}", r":2:14: the byte 0xff is not UTF-8"),
        (b"data: {path: \xed\xa0\x80}", r":1:14: the byte 0xed is not UTF-8"),
        ("data: {path: x}".encode("utf-16"), r":1:1: the file is UTF-16; save it as UTF-8"),
        ("data: {path: x}".encode("utf-16-le"), r":1:2: the character U\+0000 cannot stand"),
        (b"# " + b"x" * MAX_BYTES, r"bytes is no config; at most 262,144 are read"),
    ],
)
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, raw: bytes, message: str):
    path = tmp_path / "pets.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


@pytest.mark.parametrize("raw", [b"\xef\xbb\xbfdata: {path: x}", b"---\r\ndata:\r\n  path: x\r\n...\r\n"])
def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path, raw: bytes):
    path = tmp_path / "pets.yaml"
    path.write_bytes(raw)
    assert load_config(path).data.path == "x"


# Files


def test_a_missing_file_names_what_it_was_meant_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "configs" / "pets.yaml").write_text(PETS)
    for written, meant in (
        ("configs/pest.yaml", "configs/pets.yaml"),
        ("configs/Pets.yml", "configs/pets.yaml"),
        ("confgs/pets.yaml", "configs/pets.yaml"),
        ("pets.yaml", "configs/pets.yaml"),
        ("photo", "photos"),
    ):
        with pytest.raises(ConfigError, match=rf"^{written}: no such .*; did you mean {meant}\?$"):
            load_config(Path(written))


def test_a_missing_file_is_not_taken_for_an_unrelated_one(tmp_path: Path):
    (tmp_path / "pets.yaml").write_text(PETS)
    with pytest.raises(
        ConfigError, match=r"dogs\.yaml: no such config file; `finetune init FOLDER` writes one"
    ):
        load_config(tmp_path / "dogs.yaml")
    with pytest.raises(ConfigError, match=r"dogs: no such config file, or folder of images; `finetune init"):
        load_config(tmp_path / "dogs")


def test_what_is_no_regular_file_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"this is a folder; name a YAML file in it"):
        load_config(tmp_path)
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match=r"pipe\.yaml: this is not a regular file"):
        load_config(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    with pytest.raises(ConfigError, match=r"loop\.yaml: cannot be read: Too many levels of symbolic links"):
        load_config(tmp_path / "loop.yaml")
    with pytest.raises(ConfigError, match="cannot be read: "):
        load_config(tmp_path / "nul\0.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path):
    path = tmp_path / "pets.yaml"
    path.write_text(PETS)
    path.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load_config(path)


# Mistakes in the config


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed: 3.0", "seed: expected a whole number, got 3.0"),
        ('seed: "3"', 'seed: expected a whole number, got "3"; write it without quotes and leading zeros'),
        ("seed: 010", "seed: expected a whole number, got 010; write it without quotes and leading zeros"),
        ("seed: 1_000", "seed: expected a whole number, got 1_000"),
        ("seed: 12:30:45", "seed: expected a whole number, got 12:30:45"),
        ("seed: 2024-01-01", "seed: expected a whole number, got 2024-01-01"),
        ("seed: true", "seed: expected a whole number, got true"),
        ("seed:", "seed: expected a whole number, got nothing"),
        ("seed: -1", "seed: expected a number of at least 0, got -1"),
        ("optimizer: {weight_decay: .nan}", "optimizer.weight_decay: expected a finite number, got .nan"),
        ("optimizer: {weight_decay: -.inf}", "optimizer.weight_decay: expected a finite number, got -.inf"),
        ("optimizer: {weight_decay: 1e999}", "optimizer.weight_decay: expected a finite number, got 1e999"),
        ("optimizer: {weight_decay: 11}", "optimizer.weight_decay: expected a number of at most 10, got 11"),
        ("optimizer: {decay_bias_and_norm: yes}", "decay_bias_and_norm: expected true or false, got yes"),
        ("optimizer: {decay_bias_and_norm: 1}", "decay_bias_and_norm: expected true or false, got 1"),
        ("optimizer:", "optimizer: expected a mapping with keys from name, weight_decay, decay, "),
        ("optimizer: [adam]", "decay_bias_and_norm, momentum, beta2, eps, form, clip_norm; got a list"),
        ("device: off", "device: expected one of auto, cpu, cuda, mps; got off"),
        ("device: CUDA", "device: expected one of auto, cpu, cuda, mps; got CUDA; did you mean 'cuda'?"),
        ("optimizer: {name: adamm}", "ranger, lamb, lion; got adamm; did you mean 'adam'?"),
        (
            "optimizer: {name: rmsprop, momentum: 0.9}",
            "optimizer.momentum: rmsprop has no momentum; it has beta2, eps",
        ),
        ("optimizer: {eps: 1e-6, name: sgd}", "optimizer.eps: sgd has no eps; it has no settings"),
        ("optimizer: {form: classic}", "optimizer.form: adam has no form; it has momentum, beta2, eps"),
        (
            "optimizer: {name: momentum, form: torch}",
            "optimizer.form: expected one of ema, classic; got torch",
        ),
        (
            "optimizer: {name: adamw, decay: l2}",
            "optimizer.decay: expected decoupled, got l2; that is all that sets adamw apart from adam",
        ),
        (
            "optimizer: {momentum: 0}",
            "optimizer.momentum: expected a number greater than 0, got 0",
        ),
        ("model: {arch: 3.10}", "model.arch: expected text, got 3.10; put it in quotes if it is a name"),
        ("model: {head: {hidden: 512}}", "model.head.hidden: expected a list, got 512"),
        ("model: {head: {hidden: [512, x]}}", "model.head.hidden[1]: expected a whole number, got x"),
        ("one_cycle: {moms: [0.9]}", "one_cycle.moms: expected a list of 3 numbers, got 1"),
        ("one_cycle: {moms: [0.9, 0.8, 0.9, 0.8]}", "one_cycle.moms: expected a list of at most 3"),
        ("epochs: 3", "epochs: unknown key here; it belongs to stages.NAME.epochs"),
        ("optimizer: {clip_norm: 0}", "optimizer.clip_norm: expected a number greater than 0, got 0"),
        ("optimiser: {name: adam}", "optimiser: unknown key; did you mean 'optimizer'?"),
        ("loss: {smoothing: 0.1}", "loss.smoothing: unknown key; did you mean 'label_smoothing'?"),
        ("loss: {xyzzy: 0.1}", "loss.xyzzy: unknown key; the keys of loss are name, gamma, label_smoothing"),
        ("xyzzy: 1", "xyzzy: unknown key; the keys at the top are seed, device, "),
    ],
)
def test_a_mistake_is_told_with_line_key_value_and_what_was_expected(line: str, message: str):
    (found,) = mistakes(f"data: {{path: x}}\n\n{line}\n")
    assert found.startswith("pets.yaml:3 ")
    assert message in found


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ('epochs: "3", lr: 1e-3', 'stages.a.epochs: expected a whole number, got "3"'),
        ("epochs: 3.0, lr: 1e-3", "stages.a.epochs: expected a whole number, got 3.0"),
        ("epoch: 3, epochs: 3, lr: 1e-3", "stages.a.epoch: unknown key; did you mean 'epochs'?"),
        ("epochs: 3", "stages.a.lr: is missing; expected: Peak learning rate"),
        ("epochs: 3, lr: fast", "stages.a.lr: 'fast' is not a rate; write 1e-3, slice(1e-3)"),
        (
            'epochs: 3, lr: "slice(1e-3, 1e-5)"',
            "stages.a.lr: slice(1e-3, 1e-5) goes down; the first rate must not exceed the last",
        ),
    ],
)
def test_a_mistake_in_a_stage_names_the_stage(stage: str, message: str):
    (found,) = mistakes(f"data: {{path: x}}\nstages:\n  - {{name: a, train: head, {stage}}}\n")
    assert found.startswith(f"pets.yaml:3 {message}")


def test_a_missing_path_is_asked_for_whether_or_not_there_is_a_section():
    wanted = "data.path: is missing; expected: Folder with one sub-folder of images per class"
    assert mistakes("seed: 1")[0].startswith(f"pets.yaml:1 {wanted}")
    assert mistakes("seed: 1\ndata: {val: 0.2}")[0].startswith(f"pets.yaml:2 {wanted}")


def test_an_unquoted_colour_is_a_comment_and_the_message_says_so():
    (found,) = mistakes("data:\n  path: x\n  background: #ffffff\n")
    assert found == (
        'pets.yaml:3 data.background: expected a colour such as "#ffffff", got nothing; '
        "put it in quotes, a bare # starts a comment"
    )


def test_stages_that_disagree_are_told_at_their_lines():
    text = PETS.replace("name: unfrozen", "name: frozen").replace("train: all", "train: 4")
    assert mistakes(text) == [
        "pets.yaml:5 stages[1].name: 'frozen' is also the name of stages[0]; rename one",
        "pets.yaml:6 stages[1].train: 4 is more than model.layer_groups (3); write all, or less",
    ]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file():
    text = "seed: x\nstages:\n  - {name: A, train: head, epochs: 0, lr: 1e-3}\ndata:\n  pth: x\nfoo: 1\n"
    places = [
        line.split(":", 2)[1].split(" ") for line in mistakes(text, "loss.label_smoothing=2", "device=tpu")
    ]
    assert places[:-2] == [
        ["1", "seed"],
        ["3", "stages[0].name"],
        ["3", "stages[0].epochs"],
        ["4", "data.path"],
        ["5", "data.pth"],
        ["6", "foo"],
    ]
    assert len(places) == 8


def test_mistakes_are_listed_by_line_of_the_file_and_then_as_the_arguments_were_given():
    found = mistakes("data: {path: x}\nseed: x", "stages.late.lr=1", "sed=1", "stages.0.epochs=0", "seed.x=1")
    assert [line.partition(":")[0] for line in found] == [
        "pets.yaml",
        "argument 'stages.late.lr=1'",
        "argument 'sed=1' sed",
        "argument 'stages.0.epochs=0' stages.frozen.epochs",
        "argument 'seed.x=1'",
    ]


def test_a_stage_without_a_name_of_its_own_is_called_by_its_index():
    stages = (
        "stages:\n  - {name: 3, train: head, epochs: 0, lr: 1}\n  - {name: b, train: x, epochs: 1, lr: 1}"
    )
    keys = [line.split(" ")[1].rstrip(":") for line in mistakes(f"data: {{path: x}}\n{stages}\n")]
    assert keys == ["stages[0].name", "stages[0].epochs", "stages.b.train"]


def test_a_message_is_short_and_cannot_play_with_the_terminal():
    lines = mistakes("".join(f"k{index}: 1\n" for index in range(100)))
    assert len(lines) == 21
    assert lines[-1] == "and 81 more mistakes"  # data.path is missing as well
    (found,) = mistakes('data: {path: x}\nseed: "\\e[31m"')
    assert found == 'pets.yaml:2 seed: expected a whole number, got "\\u001b[31m"'
    (found,) = mistakes('data: {path: x}\n"\\e[31m": 1')
    assert found.startswith('pets.yaml:2 "\\u001b[31m": unknown key')
    (found,) = mistakes(f"data: {{path: x}}\n{'k' * 1000}: 1")
    assert f"{'k' * 57}...: unknown key" in found
    (found,) = mistakes(f"data: {{path: x}}\nseed: {'v' * 1000}")
    assert found.endswith(f"got {'v' * 57}...")


# Overrides


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("seed=7", lambda config: config.seed == 7),
        ("data.val=0.3", lambda config: config.data.val == 0.3),
        ("model.arch=resnet50", lambda config: config.model.arch == "resnet50"),
        ("model.weights=none", lambda config: config.model.weights == "none"),
        ("model.head={hidden: []}", lambda config: config.model.head.dropouts == (0.5,)),
        ("model.head.hidden=[64, 32]", lambda config: config.model.head.hidden == (64, 32)),
        ("model.head.hidden.0=64", lambda config: config.model.head.hidden == (64,)),
        ("one_cycle.moms.1=0.8", lambda config: config.one_cycle.moms == (0.95, 0.8, 0.95)),
        ("stages.0.lr=5e-4", lambda config: config.stages[0].lr == LearningRate(5e-4)),
        ("stages[0].lr=5e-4", lambda config: config.stages[0].lr == LearningRate(5e-4)),
        (
            "stages.unfrozen.lr=slice(1e-4)",
            lambda config: config.stages[1].lr == LearningRate(1e-4, sliced=True),
        ),
        ("stages.unfrozen.batch_norm=train", lambda config: config.stages[1].batch_norm == "train"),
        (
            "stages=[{name: a, train: head, epochs: 1, lr: 1e-3}]",
            lambda config: [stage.name for stage in config.stages] == ["a"],
        ),
        ("data.path=a=b", lambda config: config.data.path == "a=b"),
        ("data.images_per_class=null", lambda config: config.data.images_per_class is None),
    ],
)
@pytest.mark.parametrize("text", [PETS, "data: {path: photos}"], ids=["stages in the file", "default stages"])
def test_an_override_sets_one_value(text: str, override: str, value):
    assert not value(parse_config(text, "pets.yaml")) or "null" in override
    assert value(parse_config(text, "pets.yaml", [override]))


def test_an_override_leaves_everything_else_as_it_is():
    plain = parse_config("data: {path: photos}", "pets.yaml")
    changed = parse_config("data: {path: photos}", "pets.yaml", ["stages.0.epochs=3"])
    assert changed.stages[1] == plain.stages[1]
    assert changed.stages[0].model_copy(update={"epochs": 1}) == plain.stages[0]
    assert changed.model_copy(update={"stages": plain.stages}) == plain
    assert parse_config("data: {path: photos}", "pets.yaml") == plain


def test_an_override_of_a_stage_starts_from_the_stages_of_the_optimizer():
    text = "data: {path: photos}\noptimizer: {name: adadelta}\n"
    config = parse_config(text, "pets.yaml", ["stages.frozen.epochs=3"])
    assert [(stage.epochs, str(stage.lr)) for stage in config.stages] == [(3, "1"), (4, "slice(0.01, 1)")]


def test_the_last_override_of_a_value_wins():
    assert parse_config(PETS, "pets.yaml", ["seed=1", "seed=2"]).seed == 2
    stages = "stages=[{name: a, train: head, epochs: 1, lr: 1e-3}]"
    assert parse_config(PETS, "pets.yaml", [stages, "stages.a.epochs=9"]).stages[0].epochs == 9


def test_an_override_can_mend_the_file():
    assert parse_config("data: {val: 0.2}\nseed: x", "pets.yaml", ["data.path=y", "seed=1"]).data.path == "y"
    assert parse_config("data:", "pets.yaml", ["data.path=y"]).data.path == "y"


@pytest.mark.parametrize("mark", ["|", ">", "&", "-", ",", ";", "%"])
def test_one_mark_alone_is_itself_in_an_override(mark: str):
    config = parse_config("data: {path: labels.csv}", "pets.yaml", [f"data.label_separator={mark}"])
    assert config.data.label_separator == mark


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "argument 'seed': expected key=value, for instance seed=1"),
        ("=1", "argument '=1': expected key=value"),
        ("seed: 1", "argument 'seed: 1': expected key=value, write seed=1"),
        ("data.path:", "argument 'data.path:': expected key=value, write data.path=VALUE"),
        ("data..path=x", "argument 'data..path=x': expected key=value"),
        (
            "stages.7.lr=1",
            "argument 'stages.7.lr=1': stages has no '7'; it holds 2, counted from 0: frozen, unfrozen",
        ),
        ("stages.-1.lr=1", "argument 'stages.-1.lr=1': stages has no '-1'; it holds 2"),
        ("stages.late.lr=1", "argument 'stages.late.lr=1': stages has no 'late'; it holds 2"),
        ("seed.x=1", "argument 'seed.x=1': seed holds a single value, so it has no 'x'"),
        ("sed=1", "argument 'sed=1' sed: unknown key; did you mean 'seed'?"),
        ("modle.arch=x", "argument 'modle.arch=x' modle: unknown key; did you mean 'model'?"),
        ("model.ach=x", "argument 'model.ach=x' model.ach: unknown key; did you mean 'arch'?"),
        ("seed=3.0", "argument 'seed=3.0' seed: expected a whole number, got 3.0"),
        ("seed=", "argument 'seed=' seed: expected a whole number, got nothing"),
        (
            "stages.0.epochs=0",
            "argument 'stages.0.epochs=0' stages.frozen.epochs: expected a number of at least 1, got 0",
        ),
        ("data.path=[a", "argument 'data.path=[a': a list that is not closed"),
        (
            "data.path=caf\udce9",
            "argument 'data.path=caf\\udce9': the character U+DCE9 cannot stand in YAML text",
        ),
        ("seed=&a 1", "argument 'seed=&a 1': the anchor &a is not allowed"),
    ],
)
def test_a_bad_override_is_told_with_the_argument(override: str, message: str):
    (found,) = mistakes("seed: 1\n" + PETS, override)
    assert found.startswith(message)


# Writing


CONFIGS = [
    Config(data=DataConfig(path="photos")),
    parse_config(
        PETS, "pets.yaml", ["model.head.hidden=[]", "data.val=hold out", "optimizer.weight_decay=1e-5"]
    ),
    parse_config(
        PETS, "pets.yaml", ["model.head.dropout=0.1", "one_cycle.div_final=1e20", "data.image_size=96"]
    ),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_dumped_config_reads_back_to_the_same(config: Config):
    assert parse_config(dump_config(config), "dumped") == config


def test_a_dump_names_every_key_in_the_order_of_the_vocabulary():
    lines = dump_config(CONFIGS[0]).splitlines()
    assert [line.partition(":")[0] for line in lines if line[0] != " "] == list(Config.model_fields)
    (unfrozen,) = [line for line in lines if line.startswith("  - {name: unfrozen, ")]
    assert re.findall(r"(\w+): ", unfrozen) == list(StageConfig.model_fields)
    assert ', epochs: 4, lr: "slice(1e-5, 1e-3)", ' in unfrozen
    assert '  background: "#ffffff"' in lines


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ODD_TEXTS = [
    "1e-3",
    "010",
    "no",
    "true",
    "null",
    "~",
    "",
    " ",
    "#",
    "a: b",
    "- a",
    "'",
    '"',
    "\\",
    "\n",
    "\x85",
]
NUMBERS = st.integers(-(10**18) + 1, 10**18 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.sampled_from(ODD_TEXTS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), inner)
    ),
    max_leaves=6,
)
FAST = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@FAST
@given(VALUES)
@example("\ufeff\u2028\x7f\ufffe\U0001f600")
@example([1e-05, 1e16, 5e-324, -0.0])
def test_every_written_value_reads_back_to_itself(value: object):
    read = read_yaml(f"key: {write_value(value)}", "x").value["key"]
    assert read == value
    assert repr(read) == repr(value)


@FAST
@given(st.binary(max_size=200) | TEXTS.map(str.encode))
def test_any_bytes_are_a_config_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(raw)
    with contextlib.suppress(ConfigError):
        assert isinstance(load_config(path), Config)


PIECES = st.sampled_from(
    [
        *[
            ":",
            "-",
            "[",
            "]",
            "{",
            "}",
            ",",
            "&",
            "*",
            "!",
            "|",
            ">",
            "'",
            '"',
            "%",
            "@",
            "`",
            "?",
            "#",
            "~",
            "<<",
            "---",
            "...",
        ],
        "\n",
        "\t",
        "  ",
        "\0",
        "é",
    ]
)
WRITTEN = PIECES | st.sampled_from(ODD_TEXTS) | NUMBERS.map(str) | VALUES.map(write_value)


@FAST
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 12), WRITTEN), min_size=1, max_size=4))
def test_a_damaged_config_is_a_config_or_a_config_error(edits: list[tuple[int, int, str]]):
    text = dump_config(CONFIGS[0]) + "# end\n"
    for at, removed, added in edits:
        at = at * len(text) // 400
        text = text[:at] + added + text[at + removed :]
    found = outcome(text)
    assert isinstance(found, Config) or all(line.startswith("pets.yaml:") for line in found.split("\n"))


KEYS = st.sampled_from(
    ["seed", "data.path", "stages.0.lr", "stages", "model.head.hidden.0", "data", "x.y", "stages.a"]
)


@FAST
@given(st.lists(st.builds("{}={}".format, KEYS, WRITTEN) | TEXTS, max_size=3))
def test_any_override_is_a_config_or_a_config_error(overrides: list[str]):
    found = outcome(PETS, *overrides)
    assert isinstance(found, Config) or found.startswith(("argument ", "pets.yaml:"))


# Values that are numbers and make no training, and keys and files that are no config


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("data.val=1e-300", "data.val: expected a fraction from 0.001 to 0.999, got 1e-300"),
        ("data.val=0.9999999", "data.val: expected a fraction from 0.001 to 0.999"),
        ("data.workers=1024", "data.workers: expected auto or a whole number from 0 to 256, got 1024"),
        ("data.balance_beta=0.9999999999999999", "data.balance_beta: expected a number of at most 0.999999"),
        ("stages.0.lr=5e-324", "a rate must lie between 1e-12 and 1e+30"),
        ("stages.0.lr=1e300", "a rate must lie between 1e-12 and 1e+30"),
        ("stages.0.lr=1e39", "a rate must lie between 1e-12 and 1e+30"),
        ("stages.0.lr=slice(1e-300, 1)", "a rate must lie between 1e-12 and 1e+30"),
        ("stages.0.lr=slice(auto/1e300, auto)", "divides by 1e+300; at most 1e+09 makes sense"),
        (
            "optimizer={momentum: 0.9999999999999999}",
            "optimizer.momentum: expected a number of at most 0.9999",
        ),
        ("optimizer={beta2: 0.9999999999999999}", "optimizer.beta2: expected a number of at most 0.999999"),
        ("optimizer={eps: 5e-324}", "optimizer.eps: expected a number of at least 1e-20, got 5e-324"),
        ("optimizer={clip_norm: 1e-300}", "optimizer.clip_norm: expected at least 1e-06, got 1e-300"),
        ("optimizer={clip_norm: 1e300}", "optimizer.clip_norm: expected a number of at most 1e+09"),
        ("one_cycle={pct_start: 0.9999999}", "one_cycle.pct_start: expected at most 0.99, got 0.9999999"),
        ("one_cycle={div: 1e308}", "one_cycle.div: expected a number of at most 1e+06, got 1e308"),
        ("one_cycle={div_final: 1e308}", "one_cycle.div_final: expected a number of at most 1e+20"),
        (
            "one_cycle={moms: [0.9, 0.99999999, 0.9]}",
            "one_cycle.moms[1]: expected a number of at most 0.9999",
        ),
        ("slice={divisor: 1e308}", "slice.divisor: expected a number of at most 1e+06, got 1e308"),
        ("loss={label_smoothing: 0.9999999}", "label_smoothing: expected a number of at most 0.5"),
        ("model.head={dropout: 0.9999999999999999}", "model.head.dropout: expected at most 0.95, got 0.9999"),
        ("model.head={dropout: [0.5, 0.99]}", "model.head.dropout: expected at most 0.95"),
        ("model.head={metadata_dropout: 0.99}", "metadata_dropout: expected a number of at most 0.95"),
        ("ema=0.9999999999999999", "ema: expected a number of at most 0.999999"),
        ("early_stopping={patience: 2, min_delta: 2}", "no epoch gains that much of a score from 0 to 1"),
        ("early_stopping={min_delta: 101, metric: val_loss}", "min_delta: expected a number of at most 100"),
        ("lr_finder={start: 20}", "lr_finder.end: expected at least ten times lr_finder.start, which is 20"),
        (
            "lr_finder={end: 1e-7}",
            "lr_finder.end: expected at least ten times lr_finder.start, which is 1e-07, got 1e-7",
        ),
        ("lr_finder={end: 1e308}", "lr_finder.end: expected a number of at most 1e+06, got 1e308"),
        ("lr_finder={start: 5e-324}", "lr_finder.start: expected a number of at least 1e-12"),
        ("lr_finder={stop: 1e308}", "lr_finder.stop: expected a number of at most 1e+12"),
        ("optimizer={name: adadelta, decay: decoupled, weight_decay: 0.2}", "would take 20% of all weights"),
        ("optimizer={name: adam, decay: l2, weight_decay: 2}", "2 makes the decay all that moves weights"),
    ],
)
def test_a_number_that_makes_no_training_is_refused(line: str, message: str):
    with pytest.raises(ConfigError) as error:
        parse_config("data: {path: x}\n", "pets.yaml", [line])
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["adam", "sgd", "momentum", "lion", "adamw"])
def test_a_decay_that_is_stronger_than_all_learning_is_refused(name: str):
    stages = "stages=[{name: a, train: all, epochs: 1, lr: 1}]"
    with pytest.raises(ConfigError, match=r"10 at the rate 1 of stage a would take 1000% of all weights"):
        parse_config("data: {path: x}\n", "p.yaml", [stages, f"optimizer={{name: {name}, weight_decay: 10}}"])
    parse_config("data: {path: x}\n", "p.yaml", [stages, f"optimizer={{name: {name}, weight_decay: 0.1}}"])


def test_the_default_range_of_rates_fits_a_start_that_is_low_enough():
    config = parse_config("data: {path: x}\n", "pets.yaml", ["lr_finder.start=1"])
    assert load_again(config) == config


def load_again(config: Config) -> Config:
    return parse_config(dump_config(config), "again.yaml")


def test_a_key_of_thousands_of_parts_is_answered_at_once_and_in_short():
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"a key of 16,001 parts; a config is at most 4 deep") as error:
        parse_config("data: {path: x}\n", "pets.yaml", ["a." * 16_000 + "b=1"])
    assert time.monotonic() - began < 1
    assert len(str(error.value)) < 300


def test_thousands_of_unknown_keys_are_answered_at_once_and_in_short():
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"and 9,881 more mistakes") as error:
        parse_config("data: {path: x}\n" + "".join(f"key{i}: 1\n" for i in range(9_901)), "pets.yaml")
    assert time.monotonic() - began < 2
    assert len(str(error.value).splitlines()) == 21
    assert all("the keys at the top are seed" in line for line in str(error.value).splitlines()[:20])


def test_a_name_with_a_line_break_does_not_break_an_error():
    text = 'data: {path: x}\nstages: [{name: "a\\nb", train: head, epochs: 1, lr: 1e-3}]\n'
    for overrides in ([], ["stages.x.lr=1"], ["stages.a\nb.epochs=x"]):
        with pytest.raises(ConfigError) as error:
            parse_config(text, "pets.yaml", overrides)
        assert all(re.match(r"pets\.yaml:2 |argument '", line) for line in str(error.value).splitlines())
    with pytest.raises(ConfigError) as error:
        parse_config("data: {path: x}\n", "pets.yaml").find_stage("a\nb", default=0)
    assert len(str(error.value).splitlines()) == 1
