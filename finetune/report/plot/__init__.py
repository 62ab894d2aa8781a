"""Drawings: the curve of a range test, a training by epoch, and paths of optimizers."""

from finetune.report.plot.history import HistoryPlot, draw_history
from finetune.report.plot.lr_curve import CurvePlot, Marker, RacePoint
from finetune.report.plot.lr_curve_image import draw_png
from finetune.report.plot.lr_curve_text import draw_text
from finetune.report.plot.optimizer_paths import Family, Landmark, Panel, PathPlot, Trail, draw_paths

__all__ = [
    "CurvePlot",
    "Family",
    "HistoryPlot",
    "Landmark",
    "Marker",
    "Panel",
    "PathPlot",
    "RacePoint",
    "Trail",
    "draw_history",
    "draw_paths",
    "draw_png",
    "draw_text",
]
