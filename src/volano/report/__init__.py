"""The pictures and pages made from a run's files. Imports no torch."""

from volano.report.compare import write_comparison
from volano.report.confusion import draw_confusion
from volano.report.page import write_page
from volano.report.sheets import Example, draw_sheet, draw_top_losses
from volano.report.study.page import LEAST_TRIALS, Importances, write_study_report
from volano.report.targets.scatter import draw_scatter
from volano.report.write_clips import (
    MOST_IN_GRID,
    MOST_SIDE_BY_SIDE,
    enlarged,
    tiled,
    write_gif,
    write_grid,
    write_mp4,
    write_predictions,
)

__all__ = [
    "LEAST_TRIALS",
    "MOST_IN_GRID",
    "MOST_SIDE_BY_SIDE",
    "Example",
    "Importances",
    "draw_confusion",
    "draw_scatter",
    "draw_sheet",
    "draw_top_losses",
    "enlarged",
    "tiled",
    "write_comparison",
    "write_gif",
    "write_grid",
    "write_mp4",
    "write_page",
    "write_predictions",
    "write_study_report",
]
