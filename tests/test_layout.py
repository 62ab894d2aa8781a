"""Real tables at several widths: nothing is wider than the terminal, and no number or word is cut in two."""

import io
import re
import shutil
import sys
from contextlib import contextmanager

import pytest
import typer
from conftest import draw_images, some_quick, write_small_config
from rich.text import Text
from typer.main import get_command

from finetune.cli import load_app
from finetune.cli.app import reported_errors
from finetune.display import Display
from finetune.errors import ConfigError
from finetune.layout import table_lines, text_width, wrap_sentence
from finetune.progress import Bar

WIDTHS = (50, 60, 80, 120)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@contextmanager
def still_bar(self, label, total, unit="images"):
    yield Bar()


@pytest.fixture(scope="module")
def in_files():
    """Return what commands have written into a file, by their name: the same for every width."""
    return {}


@pytest.fixture
def shown(monkeypatch):
    """Return a function that runs a command and returns the lines that a stream of some width gets."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(Display, "bar", still_bar)

    def run(*arguments, width):
        """Run the command on a terminal, or into a file where `width` is None."""
        stream = io.StringIO() if width is None else Terminal()
        monkeypatch.setenv("COLUMNS", str(width or 80))
        monkeypatch.setattr(sys, "stdout", stream)
        get_command(load_app())([str(argument) for argument in arguments], standalone_mode=False)
        return Text.from_ansi(stream.getvalue()).plain.splitlines()

    return run


def draw_faulty(root):
    """Draw images of which one is broken, one has two labels, and a class has few."""
    photos = draw_images(root, each=12)
    (photos / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    shutil.copy(photos / "cat/cat00.png", photos / "dog/a copy of a cat with a name of many words.png")
    for number in range(7):
        (photos / f"owl/owl{number:02}.png").unlink()
    (photos / ".thumbnails").write_text("not an image")
    return photos


@pytest.fixture(scope="module")
def commands(images, small_run, tmp_path_factory):
    """Return the command lines whose tables are looked at, by name."""
    folder = tmp_path_factory.mktemp("widths")
    config = write_small_config(folder, images)
    image = next(images.rglob("*.png"))
    (folder / "faulty").mkdir()
    faulty = write_small_config(folder / "faulty", draw_faulty(folder / "faulty" / "photos"))
    return {
        "train": ("train", config, "--run-dir", folder / "run", "--overwrite"),
        "lr-find": ("lr-find", config, "lr_finder.steps=30", "lr_finder.pick=race", "lr_finder.race_steps=4"),
        "groups": ("groups", config),
        "check": ("check", config),
        "check with faults": ("check", faulty),
        "check that skips": ("check", faulty, "data.on_bad_image=skip", "data.max_bad_fraction=0.1"),
        "evaluate": ("evaluate", small_run),
        "predict": ("predict", small_run, image, images),
        "runs": ("runs", small_run.parent),
        "compare": ("compare", small_run, small_run),
        "models": ("models",),
        "optimizers": ("optimizers",),
    }


NAMES = [
    *("train", "lr-find", "groups", "check", "check with faults", "check that skips"),
    *("evaluate", "predict", "runs", "compare", "models", "optimizers"),
]


def pieces(lines):
    """Return the words and numbers of a text, but for its charts and the letters that mark their curves."""
    texts = [line for line in lines if not re.search("[─-╿⠁-⣿]", line) and not _marks_a_curve(line)]
    return {word for line in texts for word in line.split()}


def _marks_a_curve(line):
    """Tell whether a line holds nothing but letters below a chart, which may stand side by side."""
    return all(len(word) <= 3 and re.fullmatch("[a-z0-9↑▲]+", word) for word in line.split())


# Differ from one time to the next: durations, rates, memory, and what follows from them.
_CHANGING = re.compile(r"\d+(\.\d+)?(e[-+]\d+)?|\d+:\d\d")


@pytest.mark.parametrize("width", some_quick(WIDTHS, 50))
@pytest.mark.parametrize("name", NAMES)
def test_no_line_is_wider_than_the_terminal_and_no_number_or_word_is_cut(
    shown, commands, in_files, name, width
):
    if name not in in_files:
        in_files[name] = shown(*commands[name], width=None)
    whole = {_CHANGING.sub("0", word) for word in pieces(in_files[name])}
    lines = shown(*commands[name], width=width)
    for line in lines:
        path = any("/" in word and len(word) > width - 20 for word in line.split())
        assert text_width(line) <= width or path or "finetune " in line, line
        assert line == line.rstrip()
    parts = {_CHANGING.sub("0", word) for word in pieces(lines) if "…" not in word}
    assert parts - whole <= {"no", "room", "for:", *(f"{word}," for word in whole)}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_gets_no_trailing_blanks(shown, commands, in_files, name):
    lines = in_files[name] = in_files.get(name) or shown(*commands[name], width=None)
    assert lines == [line.rstrip() for line in lines]


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_an_error_wraps_at_blanks_on_a_terminal_only(monkeypatch, stream):
    first = "error: the augmentation 'mild' is unknown; expected none, light, standard or strong"
    second = "finetune train photos.yaml data.augment=light  # in one line, to be copied"
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(typer.Exit), reported_errors():
        raise ConfigError(f"{first.removeprefix('error: ')}\n{second}")
    *wrapped, command = stream.getvalue().splitlines()
    assert command == second
    assert " ".join(wrapped) == first
    assert (max(map(len, wrapped)) <= 30) == stream.isatty()


def test_a_path_is_shortened_from_the_left():
    rows = [("/home/me/photos/validation/ants/0003.jpg", "ants", "98.89%")]
    _, body, _ = table_lines(("image", "class", "probability"), rows, 40, paths=("image",))
    assert body == ["…ation/ants/0003.jpg  ants   98.89%"]


def test_the_least_important_columns_go_first_and_are_named():
    rows = [("1", "309,920", "1.00e-03", "0.98765")]
    head, body, left_out = table_lines(
        ("a", "parameters", "rate", "loss"), rows, 20, least_important=("rate",)
    )
    assert body == ["1  309,920   0.98765"]
    assert head == ["a  paramet…  loss"]
    assert left_out == ["rate"]


def test_text_wraps_at_blanks_and_keeps_a_number_with_its_unit():
    rows = [("a", "falls by 3% only, within the noise of batches")]
    _, body, _ = table_lines(("x", "why"), rows, 20)
    assert body == ["a  falls by 3% only,", "   within the noise", "   of batches"]
    assert wrap_sentence("  takes about 12 s in all", 14) == ["  takes about", "  12 s in all"]


@pytest.mark.parametrize("rate", ["slice(1e-4, 0.01)", "slice(auto/10, auto)"])
def test_a_slice_stays_in_one_piece_so_that_it_can_be_copied(rate):
    assert wrap_sentence(f"2 epochs, lr {rate}", 22) == ["2 epochs, lr", rate]


def test_what_a_check_finds_is_said_in_whole_words_at_every_width(shown, commands):
    wide = shown(*commands["check with faults"], width=120)
    for width in (50, 60):
        narrow = shown(*commands["check with faults"], width=width)
        said = [" ".join(" ".join(lines).split()) for lines in (wide, narrow)]
        for text in said:
            assert "error: 1 image of 31 cannot be read cat/broken.png: truncated PNG" in text
            assert "warning: 1 class has fewer than 10 images to train on: 'owl' (" in text
            assert "dog/a copy of a cat with a name of many words.png" in text


def test_wide_characters_take_two_columns():
    _, body, _ = table_lines(("class", "images"), [("蟻蜂", "1"), ("abcd", "2")], 40)
    assert body == ["蟻蜂   1", "abcd   2"]
