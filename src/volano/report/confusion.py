"""Draws a confusion matrix as a picture."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from volano.record.files import written
from volano.record.format import plotted, short

# Above this many classes the numbers no longer fit into their squares.
_MOST_WRITTEN = 20


def draw_confusion(
    matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str, out: Path
) -> None:
    """Writes a PNG: rows are the true classes, columns the predicted ones; colours are shares of
    the row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = np.asarray(matrix)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = max(4.5, min(14.0, 2.5 + 0.42 * len(classes)))
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_title(plotted(title), fontsize=11)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    ticks = range(len(classes))
    if len(classes) <= 60:
        names = [plotted(short(name, 18)) for name in classes]
        axes.set_xticks(ticks, names, rotation=90 if max(map(len, classes)) > 2 else 0, fontsize=8)
        axes.set_yticks(ticks, names, fontsize=8)
    if len(classes) <= _MOST_WRITTEN:
        centred = {"ha": "center", "va": "center", "fontsize": 7}
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), color=colour, **centred)
    with warnings.catch_warnings():
        # A name in letters that Matplotlib's font lacks is drawn as boxes; the report's page has it
        # in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        with written(out) as partial:
            figure.savefig(partial, dpi=120)
