"""What all pictures share: their colours, how text is written, and how they become a file."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from finetune.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

INK, GREY, PALE = "#1c2733", "#66727f", "#e6eaee"


def render(width: int, height: int, draw: Callable[["Figure"], None]) -> bytes:
    """Return as PNG what is drawn on a figure of so many pixels; equal drawings give equal bytes."""
    # Here, because importing matplotlib takes longer than most commands.
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A matplotlibrc of the user must not change the picture, nor ask for LaTeX.
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(width / 100, height / 100), dpi=100)
        FigureCanvasAgg(figure)
        draw(figure)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})  # it would name matplotlib's version
        return file.getvalue()


def write(figure: "Figure", text: str, tail: str, *, limit: float, bold: bool, size: int = 10) -> "Text":
    """Write a text and its tail; what makes it wider than `limit` pixels is cut before the tail."""
    from matplotlib.font_manager import findfont, get_font

    weight = "bold" if bold else "normal"
    written = figure.text(0, 0, "", size=size, weight=weight, va="center", parse_math=False)
    font = get_font(findfont(written.get_fontproperties()))
    # A letter that the font lacks would be a box and a warning.
    text = "".join(c if font.get_char_index(ord(c)) else "□" for c in printable(text)[:200])
    written.set_text(text + tail)
    while text and written.get_window_extent().width > limit:
        text = text[:-1]
        written.set_text(text.rstrip() + "…" + tail)
    return written
