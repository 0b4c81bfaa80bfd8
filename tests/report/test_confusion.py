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
