import builtins
import io
import sys
from types import ModuleType

import pytest
from rich.text import Text

from finetune.display import Display, duration
from finetune.notes import Note, as_warnings
from finetune.progress import no_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_plain_lines_without_escape_codes():
    log = io.StringIO()
    display = Display(log)
    display.say("[bold]5[/] of 7")
    display.warn("[x] is odd")
    display.table(("name", "images"), [("[red]a[/]", 1200), ("b" * 200, 3)], title="[title]")
    with display.bar("work", 10) as bar:
        for done in range(10):
            bar.advance_to(done)
    lines = [line.rstrip() for line in log.getvalue().splitlines()]
    assert lines[:3] == ["[bold]5[/] of 7", "warning: [x] is odd", "[title]"]
    assert lines[4].split() == ["[red]a[/]", "1,200"]
    assert lines[5].split() == ["b" * 200, "3"]
    assert len(lines) == 6  # work that is done in an instant needs no lines
    assert "\x1b" not in log.getvalue()
    assert "\r" not in log.getvalue()


def test_notes_are_shown_in_order_and_warnings_as_such():
    log = io.StringIO()
    notes = [
        Note("data    photos: 3 classes"),
        *as_warnings(["two images are copies"]),
        Note("model   resnet18"),
    ]
    Display(log).show(notes)
    lines = ["data    photos: 3 classes", "warning: two images are copies", "model   resnet18"]
    assert log.getvalue().splitlines() == lines


def test_work_that_nobody_watches_needs_no_display(capsys):
    with no_bar("work", 10) as bar:
        bar.advance_to(5, "loss 1.5")
        bar.advance_by(1)
    assert capsys.readouterr() == ("", "")


def test_a_long_piece_of_work_says_that_it_is_alive(monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    log = io.StringIO()
    with Display(log).bar("frozen", 100) as bar:
        for done in range(0, 100, 10):
            now += 10
            bar.advance_to(done, "loss 1.5")
    assert log.getvalue().splitlines() == [
        "frozen: 20/100 images, 1.5 s each, 2:00 left  loss 1.5",
        "frozen: 50/100 images, 1.2 s each, 1:00 left  loss 1.5",
        "frozen: 80/100 images, 1.1 s each, 22 s left  loss 1.5",
    ]


def test_work_of_unknown_length_is_counted(monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    monkeypatch.setenv("TERM", "xterm")
    log, terminal = io.StringIO(), Terminal()
    for stream in (log, terminal):
        with Display(stream).bar("listing", None, "files") as bar:
            now += 40
            bar.advance_to(80)
    assert log.getvalue() == "listing: 80 files, 2/s\n"
    assert "80 files" in Text.from_ansi(terminal.getvalue()).plain


def test_a_terminal_gets_a_bar_that_vanishes(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with Display(terminal).bar("frozen", 100) as bar:
        bar.advance_to(50, "loss 1.5")
        bar.advance_to(None, "validating")
    assert "frozen" in Text.from_ansi(terminal.getvalue()).plain
    assert "\x1b[2K" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.84, "0.8 s"), (42.4, "42 s"), (59.9, "1:00"), (187, "3:07"), (7500, "2:05:00")]
)
def test_durations_read_as_people_write_them(seconds, text):
    assert duration(seconds) == text


def test_a_quiet_display_prints_warnings_alone(capsys):
    display = Display(sys.stdout, quiet=True)
    display.say("data")
    display.table(("a",), [(1,)])
    with display.bar("training", 10) as bar:
        bar.advance_to(5)
        bar.advance_by(1)
    assert capsys.readouterr().out == ""
    display.warn("two images are copies")
    assert capsys.readouterr().out == "warning: two images are copies\n"


class ZMQInteractiveShell:
    """What rich knows a notebook by."""


@pytest.fixture
def notebook(monkeypatch):
    """Put a notebook's `display` in place, and return what it was handed: the bar's text at each time."""
    shown: list[str] = []

    class Handle:
        def update(self, content, *, raw):
            assert raw
            shown.append(content["text/plain"])

    def display(content, *, raw, display_id):
        assert "<progress" in content["text/html"]
        Handle().update(content, raw=raw)
        return Handle()

    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    module = ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown


def test_a_notebook_gets_a_bar_that_moves_and_vanishes(notebook, monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    stream = io.StringIO()
    with Display(stream).bar("frozen", 100) as bar:
        for done in range(0, 40, 10):
            now += 0.15
            bar.advance_to(done, "loss 1.5")
    assert notebook == [
        "frozen 0/100 images, 0/s",
        "frozen 10/100 images, 33/s, 2.7 s left  loss 1.5",
        "frozen 30/100 images, 50/s, 1.4 s left  loss 1.5",
        "",
    ]
    assert stream.getvalue() == ""


def test_a_bar_leaves_the_notebook_when_its_work_fails(notebook):
    with pytest.raises(KeyboardInterrupt), Display(io.StringIO()).bar("frozen", 100):
        raise KeyboardInterrupt
    assert notebook[-1] == ""


def test_a_notebook_gets_lines_as_text(notebook):
    stream = io.StringIO()
    Display(stream).say("data    photos: 3 classes")
    assert stream.getvalue() == "data    photos: 3 classes\n"
    assert notebook == []
