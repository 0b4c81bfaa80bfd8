"""What a classifier's scores say, and its hardest examples."""

from __future__ import annotations

import base64
import io
import re

from PIL import Image

from report.folders import make_run, scores_of, write
from report.test_page import ids_of, page_of


def test_the_sheet_is_cut_where_its_list_says(tmp_path):
    run = make_run(tmp_path / "run", "image")
    first = page_of(run).all("img")[0]["src"] or ""
    cut = Image.open(io.BytesIO(base64.b64decode(first.split(",", 1)[1])))
    assert list(cut.get_flattened_data()) == list(
        Image.open(run / "top-losses.png").crop((8, 8, 104, 104)).get_flattened_data()
    )


def test_without_its_list_the_sheet_is_shown_whole(tmp_path):
    run = make_run(tmp_path / "run", "image")
    (run / "top-losses.json").unlink()
    assert page_of(run).all("img")[0]["width"] == "224"


def test_text_classification(tmp_path):
    run = make_run(tmp_path / "run", "text")
    (run / "previews.jsonl").unlink()
    candidates = {"n-gram bag": 0.9524, "language model head": 0.91}
    write(
        run / "eval-test.json",
        {**scores_of(["ham", "spam"]), "candidates": candidates, "kept": "n-gram bag"},
    )
    page = page_of(run)
    assert ids_of(page)[0] == "results"
    assert re.search(r"n-gram bag\s+kept\s*95.24 %", page.text)
    assert "by accuracy on training texts held back to choose" in page.text
    assert "91.00 %" in page.text


def test_many_classes_are_a_map(tmp_path):
    run = make_run(tmp_path / "run", "image")
    write(run / "eval-test.json", scores_of([f"class {number}" for number in range(120)]))
    (run / "top-losses.png").unlink()
    (run / "augmented.png").unlink()
    page = page_of(run)
    assert len(page.all("rect")) == 240
    assert "The 40 hardest classes; 80 with higher F1" in page.text
    assert (run / "report.html").stat().st_size < 100_000
