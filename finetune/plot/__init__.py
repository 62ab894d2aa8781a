"""Pictures: the curve of a range test, as a PNG file and as text."""

from finetune.plot.curve import CurvePlot, Marker, draw_png, draw_text

__all__ = ["CurvePlot", "Marker", "draw_png", "draw_text"]
