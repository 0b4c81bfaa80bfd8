"""Confusion matrices as pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image

from volano.report import draw_confusion


def test_a_confusion_matrix_takes_any_name(tmp_path):
    names = ["<script>", "漢字", "$x_{$", "a" * 300]
    draw_confusion(np.eye(4, dtype=int).tolist(), names, "$title$", tmp_path / "matrix.png")
    with Image.open(tmp_path / "matrix.png") as picture:
        assert min(picture.size) > 400


def test_names_that_are_no_utf_8_are_drawn(tmp_path):
    names = ["caf\udce9", "b\udcff\udcfe"]
    draw_confusion([[3, 1], [0, 4]], names, "a folder \udce9", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
