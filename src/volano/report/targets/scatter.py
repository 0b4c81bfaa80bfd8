"""Draws predicted numbers over true ones as a picture."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from volano.record.files import written
from volano.record.format import plotted, short

_MOST_DRAWN = 6  # numbers; the others stand in the figures
_SIDE = 3.6  # inches


def draw_scatter(pairs: Mapping[str, Sequence[Sequence[float]]], title: str, out: Path) -> None:
    """Writes a PNG with a square for each number: a dot for each example, and the line on which
    both are equal.

    Args:
        pairs: true and predicted number of examples, by the numbers' names.
        out: the file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = list(pairs.items())[:_MOST_DRAWN]
    num_columns = min(3, len(drawn))
    num_rows = -(-len(drawn) // num_columns)
    figure = Figure(figsize=(1 + _SIDE * num_columns, 1 + _SIDE * num_rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(plotted(title), fontsize=11)
    for place, (name, values) in enumerate(drawn, start=1):
        axes = figure.add_subplot(num_rows, num_columns, place)
        true, predicted = np.asarray(values, dtype=np.float64).T
        ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
        axes.plot(ends, ends, color="0.6", linewidth=1)
        axes.scatter(true, predicted, s=12, alpha=0.6, linewidths=0)
        axes.set_xlabel(f"true {plotted(short(name, 40))}")
        axes.set_ylabel("predicted")
    with warnings.catch_warnings():
        # A name in letters that Matplotlib's font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        with written(out) as partial:
            figure.savefig(partial, dpi=120)
