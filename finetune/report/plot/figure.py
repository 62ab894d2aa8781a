"""What all pictures share: their colours, how text is written, and how they become a file."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from finetune.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

INK, GREY, PALE = "#1c2733", "#66727f", "#e6eaee"


def render(width: int, height: int, draw: Callable[["Figure"], None]) -> bytes:
    """Return as PNG what is drawn on a figure of so many pixels; equal drawings give equal bytes."""
    with _figure(width, height) as figure:
        draw(figure)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})  # it would name matplotlib's version
        return file.getvalue()


def render_svg(width: int, height: int, draw: Callable[["Figure"], None], *, salt: str) -> str:
    """Return as an `<svg>` element, to stand in a page, what is drawn on a figure of so many pixels.

    Letters stay text, in the font of the page. `salt` keeps the ids of several drawings in a page apart.
    """
    import matplotlib as mpl

    with _figure(width, height) as figure, mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        draw(figure)
        figure.patch.set_visible(False)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]  # without the XML declaration, which a page must not contain
    # Sizes in points become those of the page: 1 px of ours is 1 px of it, and the page may set the width.
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 width="{width}"', svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', rf'\1 height="{height}"', svg, count=1)
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)


@contextmanager
def _figure(width: int, height: int) -> Iterator["Figure"]:
    # Imported here, because importing matplotlib takes longer than most commands.
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A matplotlibrc of the user must not change the picture, nor require LaTeX.
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(width / 100, height / 100), dpi=100)
        FigureCanvasAgg(figure)
        yield figure


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
