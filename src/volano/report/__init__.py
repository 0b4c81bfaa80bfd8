"""Pictures and pages made from what a run leaves behind. Imports no torch."""

from volano.report.compare import write_comparison
from volano.report.confusion import draw_confusion
from volano.report.page import write_page
from volano.report.sheets import Example, draw_sheet, draw_top_losses

__all__ = ["Example", "draw_confusion", "draw_sheet", "draw_top_losses", "write_comparison", "write_page"]
