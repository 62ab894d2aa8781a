"""What a person sees while a command runs: live bars on a terminal or in a notebook, plain lines in a log."""

import html
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import IO, TYPE_CHECKING, cast

from finetune.notes import Note
from finetune.progress import Bar, amount, speed
from finetune.streams import Heedless
from finetune.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_WIDE = 10_000
_LOG_INTERVAL = 30.0  # seconds: so often a long epoch says in a log that it is alive
# A notebook's output has no width that could be asked for; more than this and its lines wrap.
_NOTEBOOK_COLUMNS = 110
# A notebook's bar moves at most this often, in seconds: each time is a message to the browser.
_NOTEBOOK_INTERVAL = 0.2


class Display:
    """Prints to one stream; bars move where that stream is a terminal, and in a notebook.

    rich is imported with the first line: a command whose config has an error prints none.
    """

    def __init__(self, stream: IO[str], *, quiet: bool = False) -> None:
        """Print to `stream`; `quiet` prints warnings alone."""
        self._stream, self._quiet = Heedless(stream), quiet

    @property
    def lost(self) -> OSError | None:
        """Why some of it was not printed; None as well where its reader has left, who had seen enough."""
        return None if isinstance(self._stream.lost, BrokenPipeError) else self._stream.lost

    @cached_property
    def _notebook(self) -> bool:
        """Whether this is a notebook: there rich makes HTML of each line, and needs ipywidgets for a bar."""
        from rich.console import Console

        return Console(file=cast(IO[str], self._stream)).is_jupyter

    @cached_property
    def _console(self) -> "Console":
        from rich.console import Console

        # In a file or a pipe nothing is wrapped: whoever reads it has a width of their own.
        return Console(
            file=cast(IO[str], self._stream),
            highlight=False,
            soft_wrap=True,
            width=_NOTEBOOK_COLUMNS if self._notebook else None if self._stream.isatty() else _WIDE,
            force_jupyter=False,
        )

    @property
    def width(self) -> int:
        """Columns of the terminal; 80 where there is none."""
        return self._console.width if self._console.is_terminal else 80

    @property
    def ascii_only(self) -> bool:
        """Whether the stream's encoding has no room for anything but ASCII."""
        return not self._console.encoding.lower().startswith("utf")

    def say(self, text: str) -> None:
        """Print a line (or several) as it is."""
        if self._quiet:
            return
        self._print(printable(text, keep="\n"))

    def warn(self, text: str) -> None:
        """Print a line that the user should not miss."""
        self._print("warning: " + printable(text, keep="\n"), yellow=len("warning:"))

    def show(self, notes: Iterable[Note]) -> None:
        """Print what was noticed, warnings as such."""
        for note in notes:
            (self.warn if note.warning else self.say)(note.text)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        *,
        title: str = "",
        paths: Collection[str] = (),
        least_important: Sequence[str] = (),
    ) -> None:
        """Print a table; columns whose first cell is a number are aligned to the right.

        Args:
            columns: their headings.
            rows: their cells.
            title: a line above the table.
            paths: headings of columns that hold paths, which are shortened from the left.
            least_important: headings in the order in which columns go if there is no room for all.
        """
        if self._quiet:
            return
        from finetune.layout import table_lines

        if title:
            self._print(printable(title), bold=True)
        head, body, left_out = table_lines(
            [printable(name) for name in columns],
            [[printable(_cell(value)) for value in row] for row in rows],
            self._console.width,
            right=[
                number for number in range(len(columns)) if rows and isinstance(rows[0][number], int | float)
            ],
            paths=paths,
            least_important=least_important,
        )
        self._print("\n".join(head), bold=True)
        if body:
            self._console.print("\n".join(body), markup=False, emoji=False)
        if left_out:
            self._print(f"no room for: {', '.join(left_out)}")

    def _print(self, text: str, *, bold: bool = False, yellow: int = 0) -> None:
        """Print lines, on a terminal wrapped at blanks; the first `yellow` characters in that colour."""
        if self._console.is_terminal:
            from finetune.layout import wrap_text

            text = wrap_text(text, self._console.width)
        from rich.text import Text

        styled = Text(text, style="bold" if bold else "")
        styled.stylize("yellow", 0, yellow)
        self._console.print(styled)

    @contextmanager
    def bar(self, label: str, total: int | None, unit: str = "images") -> Iterator[Bar]:
        """Show how far `total` units of work have come; a bar that moves vanishes at the end.

        Where nobody knows how many there will be (`total` None), those that are done are counted.
        """
        if self._quiet:
            yield Bar()
        elif self._notebook:
            notebook_bar = _NotebookBar(label, total, unit)
            try:
                yield notebook_bar
            finally:
                notebook_bar.clear()
        elif self._console.is_terminal:
            from rich.markup import escape

            with _live_progress(self._console) as progress:
                done = amount(0, total, unit)
                task = progress.add_task(escape(label), total=total, amount=done, rate="", note="")
                yield _LiveBar(progress, task, total, unit)
        else:
            yield _LogBar(self, label, total, unit)


def _live_progress(console: "Console") -> "Progress":
    """Return rich's bars for a terminal, which are imported with the first of them."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[amount]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
    )


class _LiveBar(Bar):
    def __init__(self, progress: "Progress", task: "TaskID", total: int | None, unit: str) -> None:
        super().__init__()
        self._progress, self._task, self._total, self._unit = progress, task, total, unit

    def advance_to(self, done: int | None, note: str = "") -> None:
        if done is None:
            self._progress.update(self._task, note=note)
        else:
            done_of, rate = amount(done, self._total, self._unit), speed(self.rate(done))
            self._progress.update(self._task, completed=done, amount=done_of, rate=rate, note=note)


class _LogBar(Bar):
    def __init__(self, display: Display, label: str, total: int | None, unit: str) -> None:
        super().__init__()
        self._display, self._label, self._total, self._unit = display, label, total, unit
        self._spoken, self._done = self._started, 0

    def advance_to(self, done: int | None, note: str = "") -> None:
        self._done = done = self._done if done is None else done
        now = time.perf_counter()
        if now - self._spoken < _LOG_INTERVAL:
            return
        self._spoken = now
        rate, done_of = self.rate(done), amount(done, self._total, self._unit)
        left = _left(done, self._total, rate)
        self._display.say(f"{self._label}: {done_of}, {speed(rate)}{left}  {note}".rstrip())


class _NotebookBar(Bar):
    def __init__(self, label: str, total: int | None, unit: str) -> None:
        from IPython.display import display  # a notebook has it; it is none of our requirements

        super().__init__()
        self._label, self._total, self._unit = label, total, unit
        self._done, self._shown = 0, self._started
        self._handle = display(self._content(""), raw=True, display_id=True)

    def advance_to(self, done: int | None, note: str = "") -> None:
        self._done = self._done if done is None else done
        now = time.perf_counter()
        if now - self._shown >= _NOTEBOOK_INTERVAL:
            self._shown = now
            self._handle.update(self._content(note), raw=True)

    def clear(self) -> None:
        """Leave nothing of the bar in the notebook."""
        self._handle.update({"text/plain": "", "text/html": ""}, raw=True)

    def _content(self, note: str) -> dict[str, str]:
        rate = self.rate(self._done)
        left = _left(self._done, self._total, rate) if self._done else ""
        done_of = amount(self._done, self._total, self._unit)
        text = f"{self._label} {done_of}, {speed(rate)}{left}  {note}".rstrip()
        known = "" if self._total is None else f' value="{self._done}" max="{self._total}"'
        bar = f"<progress{known}></progress> <code>{html.escape(printable(text))}</code>"
        return {"text/plain": text, "text/html": bar}


def _left(done: int, total: int | None, rate: float) -> str:
    return "" if total is None else f", {duration((total - done) / max(rate, 1e-9))} left"


def duration(seconds: float) -> str:
    """Write a time span as a person would: `0.8 s`, `42 s`, `3:07`, `2:05:00`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
