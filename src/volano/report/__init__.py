"""Pictures and pages made from what a run leaves behind. Imports no torch."""

from volano.report.clips import enlarged, tiled, write_gif, write_grid, write_mp4, write_predictions
from volano.report.confusion import draw_confusion

__all__ = ["draw_confusion", "enlarged", "tiled", "write_gif", "write_grid", "write_mp4", "write_predictions"]
