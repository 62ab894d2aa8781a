import codecs
import errno
import os
import re
import shlex
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from finetune.config.config import Config
from finetune.config.editor import write_stage_lr
from finetune.config.load import load_config, parse_config
from finetune.config.yaml_reader import MAX_BYTES, read_yaml
from finetune.errors import ConfigError, ResourceError
from finetune.optim.learning_rates import LearningRate, parse_lr

SHIPPED = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
HEAD = "data: {path: photos}\n"
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
NEW_RATES = {
    0.0032: "0.0032",
    1e-05: "1.0e-05",
    "slice(1e-5, 3e-3)": '"slice(1e-5, 3e-3)"',
    "slice(2e-3)": '"slice(2e-3)"',
}


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    path = tmp_path / "pets.yaml"
    path.write_bytes(PETS.encode())
    return path


def with_rate(config: Config, stage: str, lr: float | str) -> Config:
    """Return a config that differs from another in one rate."""
    stages = [
        item.model_copy(update={"lr": parse_lr(lr)}) if item.name == stage else item for item in config.stages
    ]
    return config.model_copy(update={"stages": tuple(stages)})


def assert_only_the_rate_changes(path: Path, around: tuple[bytes, bytes], old: str, lr: float | str) -> None:
    """Write a rate where `old` stands; compare every byte of the file, and what it means now."""
    before, after = around
    path.write_bytes(before + old.encode() + after)
    config = load_config(path)
    write_stage_lr(path, "frozen", lr)
    assert path.read_bytes() == before + NEW_RATES[lr].encode() + after
    assert load_config(path) == with_rate(config, "frozen", lr) != config


# Layouts: the old rate stands where the @ is


LAYOUTS = {
    "block": "stages:\n  - name: frozen\n    train: head\n    epochs: 1\n    lr: @\n",
    "first key": "stages:\n- lr: @\n  name: frozen\n  train: head\n  epochs: 1\n",
    "flow": "stages:\n  - {name: frozen, train: head, epochs: 1, lr: @}\n",
    "all flow": "stages: [{lr: @,name: frozen,train: head,epochs: 1},]\n",
    "many-line flow": "stages: [\n {\n name: frozen, # a\n  train: head,\n\n  epochs: 1, lr: @  # b\n }\n]\n",
    "spaces": "stages:  \n  -  name:  'frozen'\n     train: head\n     lr  :    @    \n     epochs: 1\n\n\n",
    "quoted keys": '"stages":\n  - {\'name\': "frozen", "train":\'head\', \'epochs\': 1, "lr": @ }\n',
    "question mark": "stages:\n  - name: frozen\n    train: head\n    epochs: 1\n    ? lr\n    : @\n",
    "next line": "stages:\n  - name: frozen\n    train: head\n    epochs: 1\n    lr:\n      @\n",
    "comment behind": "stages:\n  - name: frozen\n    lr: @ # lr: 1e-3\n    train: head\n    epochs: 1",
    "comments between": "stages: # a\n# b\n  - # c\n    name: frozen # d\n    train: head\n#e\n"
    "    epochs: 1\n    lr: # f\n    # lr: 7\n\n      @\n  # g\n",
    "emoji before": "# 🐈 🐕 é\nstages:\n  - {name: frozen, train: head, epochs: 1, lr: @} # 🦉\n",
    "odd line ends": "# a\x85# b\u2028# c\u2029# d\r# e\n"
    "stages:\n  - {name: frozen, train: head, epochs: 1, lr: @}",
    "second stage": "stages:\n  - {name: lr, train: head, epochs: 1, lr: 1e-3}\n"
    "  - {name: frozen, train: head, epochs: 1, lr: @}\n  - {name: c, train: all, epochs: 1, lr: 1e-3}\n",
    "lr elsewhere": "output: {dir: 'lr: 1e-3'}\nstages:\n  - {name: frozen, train: head, epochs: 1, lr: @}\n",
    "document end": "stages:\n  - {name: frozen, train: head, epochs: 1, lr: @}\n...\n# after\n",
}
OLD_RATES = [
    *["1e-3", "0.001", "slice(1e-3)", '"slice(1e-5, 1e-3)"', "'slice(1e-3)'"],
    *['"slice(1e-5,\n      1e-3)"', '"slice(\\x31e-3)"'],
]


@pytest.mark.parametrize("old", OLD_RATES)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_nothing_changes_but_the_rate(tmp_path: Path, layout: str, old: str):
    before, after = (HEAD + layout).encode().split(b"@")
    for lr in NEW_RATES:
        assert_only_the_rate_changes(tmp_path / "pets.yaml", (before, after), old, lr)


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["no mark", "byte order mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_line_ends_and_a_byte_order_mark_stay(tmp_path: Path, layout: str, end: str, mark: bytes):
    before, after = (mark + (HEAD + layout).replace("\n", end).encode()).split(b"@")
    old = '"slice(1e-5,\n      1e-3)"'.replace("\n", end)
    assert_only_the_rate_changes(tmp_path / "pets.yaml", (before, after), old, 0.0032)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("slice(1e-5,\n      1e-3) # why\n", "0.0032 # why\n"),
        ("slice(1e-5,\n\n      1e-3)", "0.0032"),
        ("'slice(1e-3)'# why\n", "0.0032 # why\n"),  # what follows a plain value must be a space
        ("|\n      slice(1e-3)\n", "0.0032\n"),
        ("|\n      slice(1e-3)", "0.0032"),
        ("|\r\n      slice(1e-3)\r\n", "0.0032\r\n"),
        ("|-2  # why \n\n      slice(1e-3)\n\n\n# after\n", "0.0032  # why\n\n\n# after\n"),
        (">+ # |2\n      slice(1e-5,\n      1e-3)\n  \n  # after\n", "0.0032 # |2\n  \n  # after\n"),
        ("\n     |\n      slice(1e-3)\u2028\n# after\n", "\n     0.0032\u2028\n# after\n"),
    ],
)
@pytest.mark.parametrize("later", ["", "\n  - {name: unfrozen, train: all, epochs: 4, lr: 1e-3}\n"])
def test_a_rate_on_many_lines_becomes_one_line(tmp_path: Path, old: str, new: str, later: str):
    later = later if old.endswith("\n") else ""
    before = f"{HEAD}stages:\n  - name: frozen\n    train: head\n    epochs: 1\n    lr: "
    path = tmp_path / "pets.yaml"
    path.write_bytes((before + old + later).encode())
    config = load_config(path)
    write_stage_lr(path, "frozen", 0.0032)
    assert path.read_bytes().decode() == before + new + later
    assert load_config(path) == with_rate(config, "frozen", 0.0032)


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.stem)
def test_every_rate_of_a_shipped_config_can_be_written(tmp_path: Path, shipped: Path):
    path = tmp_path / "pets.yaml"
    path.write_bytes(shipped.read_bytes())
    for stage in load_config(shipped).stages:
        config, lines = load_config(path), path.read_bytes().split(b"\n")
        write_stage_lr(path, stage.name, 0.0123)
        assert load_config(path) == with_rate(config, stage.name, 0.0123)
        pairs = zip(lines, path.read_bytes().split(b"\n"), strict=True)
        ((before, after),) = [(old, new) for old, new in pairs if old != new]
        assert before.lstrip().startswith(f"- {{name: {stage.name}, ".encode())
        assert after == re.sub(rb'\blr: ("[^"]*"|[^,}]+)', b"lr: 0.0123", before)


COMMENTS = st.text(st.sampled_from("ab lr:1e-3{}[]'\"#&*|>-?%\\é🦉\t"), max_size=12).map("#{}".format)
TAILS = st.sampled_from(["", "   "]) | COMMENTS.map("  {}".format)
GAPS = st.lists(COMMENTS.map("   {}\n".format) | st.sampled_from(["\n", "  \n"]), max_size=2).map("".join)
KEYS = {"name": ["frozen", "'frozen'", '"frozen"'], "train": ["head", "'head'"], "epochs": ["1"], "lr": ["@"]}
FAST = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@st.composite
def layouts(draw: st.DrawFn) -> str:
    """Write a config with a stage `frozen` among others, spaced, quoted and commented anyhow."""
    keys = draw(st.permutations(list(KEYS)))
    colon = st.sampled_from([": ", " :  ", ":\n" + " " * 7]) | COMMENTS.map(": {}\n        ".format)
    items = [
        draw(st.sampled_from([key, f"'{key}'", f'"{key}"'])) + draw(colon) + draw(st.sampled_from(KEYS[key]))
        for key in keys
    ]
    if draw(st.booleans()):
        comma = st.sampled_from([", ", ",  ", " ,\n        "]) | COMMENTS.map(",  {}\n        ".format)
        stage = "{" + "".join(item + draw(comma) for item in items) + "}" + draw(TAILS) + "\n"
    else:
        stage = "    ".join(item + draw(TAILS) + "\n" + draw(GAPS) for item in items)
    others = [f"{{name: {name}, train: all, epochs: 1, lr: 1e-3}}{draw(TAILS)}\n" for name in ("a", "b")]
    stages = "".join(f"{draw(GAPS)}  - {item}" for item in draw(st.permutations([stage, *others])))
    head = f"{draw(GAPS)}data: {{path: photos}}{draw(TAILS)}\n"
    text = f"{head}{draw(GAPS)}stages:{draw(TAILS)}\n{stages}{draw(GAPS)}"
    text = text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))
    return draw(st.sampled_from(["", "\ufeff"])) + text.removesuffix("\n" * draw(st.integers(0, 1)))


@FAST
@given(layouts(), st.sampled_from(OLD_RATES), st.sampled_from(list(NEW_RATES)))
def test_nothing_changes_but_the_rate_in_any_layout(
    tmp_path_factory: pytest.TempPathFactory, layout: str, old: str, lr: float | str
):
    before, after = layout.encode().split(b"@")
    assert_only_the_rate_changes(tmp_path_factory.getbasetemp() / "any.yaml", (before, after), old, lr)


PIECES = st.sampled_from(
    [*":-[]{},&*!|>'\"%@`?#~\n\t\r\x85\u2028é🦉", "  ", "lr", "frozen", "|\n", "---", ""]
)


@FAST
@given(st.lists(st.tuples(st.integers(0, len(PETS)), st.integers(0, 12), PIECES), min_size=1, max_size=4))
@example([(PETS.index("1e-3"), 4, "'1'#")])
def test_a_damaged_file_gets_the_rate_and_nothing_else_or_is_left(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int, str]]
):
    text = PETS
    for at, removed, added in edits:
        text = text[:at] + added + text[at + removed :]
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_bytes(text.encode())
    try:
        write_stage_lr(path, "frozen", 0.0032)
    except ConfigError:
        assert path.read_bytes() == text.encode()
        return
    old, new = read_yaml(text, "old").value, read_yaml(path.read_bytes().decode(), "new").value
    stages = enumerate(old["stages"])
    (index,) = (i for i, stage in stages if isinstance(stage, dict) and stage.get("name") == "frozen")
    assert new["stages"][index].pop("lr") == 0.0032
    del old["stages"][index]["lr"]
    assert new == old


# Files


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
def test_permission_bits_stay(pets: Path, mode: int):
    pets.chmod(mode)
    write_stage_lr(pets, "frozen", 0.0032)
    assert stat.S_IMODE(pets.stat().st_mode) == mode
    assert os.listdir(pets.parent) == ["pets.yaml"]


def test_a_symbolic_link_stays_and_what_it_leads_to_is_written(pets: Path):
    links = pets.parent / "links"
    links.mkdir()
    (links / "first.yaml").symlink_to("second.yaml")
    (links / "second.yaml").symlink_to("../pets.yaml")
    write_stage_lr(links / "first.yaml", "frozen", 0.0032)
    assert os.readlink(links / "first.yaml") == "second.yaml"
    assert os.readlink(links / "second.yaml") == "../pets.yaml"
    assert sorted(os.listdir(links)) == ["first.yaml", "second.yaml"]
    assert not pets.is_symlink()
    assert pets.read_text() == PETS.replace("1, lr: 1e-3", "1, lr: 0.0032")


def test_a_file_in_the_current_folder_is_written(pets: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(pets.parent)
    write_stage_lr(Path("pets.yaml"), "unfrozen", "slice(1e-4)")
    assert pets.read_text() == PETS.replace("slice(1e-5, 1e-3)", '"slice(1e-4)"')


def test_a_rename_that_fails_leaves_the_file(pets: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ResourceError, match=r"Cannot write .*pets\.yaml: Read-only file system"):
        write_stage_lr(pets, "frozen", 0.0032)
    assert pets.read_text() == PETS
    assert os.listdir(pets.parent) == ["pets.yaml"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_is_protected_from_writing_is_refused(pets: Path):
    pets.chmod(0o444)
    with pytest.raises(ResourceError, match=r"Cannot write .*pets\.yaml: Permission denied"):
        write_stage_lr(pets, "frozen", 0.0032)
    assert pets.read_text() == PETS


def test_a_file_that_would_grow_too_large_to_read_is_left(pets: Path):
    text = PETS + "#" * (MAX_BYTES - len(PETS))
    pets.write_text(text)
    with pytest.raises(ConfigError, match=r"262,147 bytes is no config; at most 262,144 are read"):
        write_stage_lr(pets, "frozen", 0.00325)
    assert pets.read_text() == text


def test_a_value_that_does_not_read_back_is_a_bug_and_leaves_the_file(pets: Path):
    with pytest.raises(
        RuntimeError, match=r"pets\.yaml stays as it is: the new file would say .*'lr': 'nan'"
    ):
        write_stage_lr(pets, "frozen", float("nan"))
    assert pets.read_text() == PETS


def test_a_number_that_is_not_finite_elsewhere_is_no_hindrance(pets: Path):
    pets.write_text(PETS + "optimizer: {weight_decay: .nan}\n")
    write_stage_lr(pets, "frozen", 0.0032)
    assert load_config(pets, ["optimizer.weight_decay=0"]).stages[0].lr == LearningRate(0.0032)


# Refusals


@pytest.mark.parametrize(
    ("text", "stage", "message"),
    [
        (
            HEAD,
            "frozen",
            "pets.yaml: it has no stages, so --write has no place for the rate of stage frozen.\n"
            "Add them: stages: [{name: frozen, train: head, epochs: 1, lr: 0.0032}, "
            '{name: unfrozen, train: all, epochs: 4, lr: "slice(1e-5, 1e-3)"}]',
        ),
        (
            HEAD + "stages:\n",
            "late",
            "pets.yaml: it has no stages, so --write has no place for the rate of stage late.\n"
            "Write it by hand, or give the rate on the command line: stages.late.lr=0.0032",
        ),
        (
            PETS,
            "late",
            "pets.yaml:3 stages: --write needs one stage named late in the file, found frozen, unfrozen.\n"
            "Write it by hand, or give the rate on the command line: stages.late.lr=0.0032",
        ),
        (
            PETS.replace("unfrozen", "frozen"),
            "frozen",
            "pets.yaml:3 stages: --write needs one stage named frozen in the file, found frozen, frozen.\n"
            "Write it by hand, or give the rate on the command line: stages.frozen.lr=0.0032",
        ),
        (
            'stages: [3, {name: "\\e[31m"}, {name: [frozen]}]',
            "frozen",
            "pets.yaml:1 stages: --write needs one stage named frozen in the file, "
            "found None, \"\\u001b[31m\", ['frozen'].\n"
            "Write it by hand, or give the rate on the command line: stages.frozen.lr=0.0032",
        ),
        (
            PETS.replace(", lr: 1e-3", ""),
            "frozen",
            "pets.yaml:4 stages.frozen.lr: there is no value that --write could replace.\n"
            "Write it by hand: lr: 0.0032",
        ),
        (
            PETS.replace("lr: slice(1e-5, 1e-3)", "lr: # to be found"),
            "unfrozen",
            "pets.yaml:8 stages.unfrozen.lr: there is no value that --write could replace.\n"
            "Write it by hand: lr: 0.0032",
        ),
        (
            PETS.replace("lr: 1e-3", "lr: [1e-3]"),
            "frozen",
            "pets.yaml:4 stages.frozen.lr: there is no value that --write could replace.\n"
            "Write it by hand: lr: 0.0032",
        ),
        (PETS + "seed: [", "frozen", "pets.yaml:9:8: a value is missing here, or a bracket is not closed"),
        (
            PETS + "seed: *a",
            "frozen",
            "pets.yaml:9:7: the alias *a is not allowed; write it out, or quote it",
        ),
    ],
)
def test_a_file_without_a_place_for_the_rate_is_refused_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, stage: str, message: str
):
    monkeypatch.chdir(tmp_path)
    path = Path("pets.yaml")
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        write_stage_lr(path, stage, 0.0032)
    assert path.read_text() == text


@pytest.mark.parametrize("text", ["", "3", "[stages]", "stages: 3", "stages: frozen", "stages: []"])
def test_a_file_that_is_no_config_has_no_stages(pets: Path, text: str):
    pets.write_text(text)
    with pytest.raises(
        ConfigError, match="it has no stages, so --write has no place for the rate of stage a"
    ):
        write_stage_lr(pets, "a", 0.0032)


@pytest.mark.parametrize(
    ("raw", "message"), [(None, "no such config file"), (b"\xff", "the byte 0xff is not UTF-8")]
)
def test_a_file_that_cannot_be_read_is_refused_as_load_config_does(
    tmp_path: Path, raw: bytes | None, message: str
):
    if raw is not None:
        (tmp_path / "pets.yaml").write_bytes(raw)
    with pytest.raises(ConfigError, match=message):
        write_stage_lr(tmp_path / "pets.yaml", "frozen", 0.0032)


def advice(path: Path, stage: str, lr: float | str) -> str:
    """Return what a refusal says to add."""
    with pytest.raises(ConfigError) as caught:
        write_stage_lr(path, stage, lr)
    return str(caught.value).split("\n")[1].partition(": ")[2]


@pytest.mark.parametrize("lr", [*NEW_RATES, 0.003])  # the last is the default
@pytest.mark.parametrize("stage", ["frozen", "unfrozen"])
def test_the_stages_that_a_refusal_advises_are_the_defaults_with_the_rate(
    pets: Path, stage: str, lr: float | str
):
    pets.write_text(HEAD)
    text = f"{HEAD}{advice(pets, stage, lr)}\n"
    assert parse_config(text, "advised") == with_rate(parse_config(HEAD, "plain"), stage, lr)


@pytest.mark.parametrize("lr", NEW_RATES)
def test_the_override_that_a_refusal_advises_works(pets: Path, lr: float | str):
    added = "stages=[{name: late, train: all, epochs: 1, lr: 1e-3}]"
    (override,) = shlex.split(advice(pets, "late", lr))
    assert load_config(pets, [added, override]).stages[0].lr == parse_lr(lr)
