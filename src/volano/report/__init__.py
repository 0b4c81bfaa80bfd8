"""Pictures and pages made from what a run leaves behind. Imports no torch."""

from volano.report.confusion import draw_confusion

__all__ = ["draw_confusion"]
