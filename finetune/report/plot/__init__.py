"""Pictures as PNG files: the curve of a range test, which there is as text too, and paths of optimizers."""

from finetune.report.plot.lr_curve import CurvePlot, Marker, draw_png, draw_text
from finetune.report.plot.optimizer_paths import Family, Landmark, Panel, PathPlot, Trail, draw_paths

__all__ = [
    "CurvePlot",
    "Family",
    "Landmark",
    "Marker",
    "Panel",
    "PathPlot",
    "Trail",
    "draw_paths",
    "draw_png",
    "draw_text",
]
