"""Pictures and clips that stand in a page themselves."""

from __future__ import annotations

import pytest
from PIL import Image

from report.folders import make_run
from report.test_page import page_of
from volano.report import media


def test_damaged_pictures_are_named(tmp_path):
    run = make_run(tmp_path / "run", "video")
    (run / "clips-real.gif").write_bytes((run / "clips-real.gif").read_bytes()[:300])
    (run / "predictions.png").write_bytes(b"no picture")
    text = page_of(run).text
    assert "predictions.png is damaged" in text
    assert "real clips cannot be shown: clips-real.gif is damaged" in text
    assert "generated clips" not in text


def test_a_clip_too_large_for_a_page_costs_the_other_nothing(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", "video")
    monkeypatch.setattr(media, "_MOST_BYTES", (run / "clips-real.gif").stat().st_size)
    with (run / "clips-generated.gif").open("ab") as file:
        file.write(bytes(2**16))
    page = page_of(run)
    assert (
        "generated clips cannot be shown: clips-generated.gif has 0 MiB, too much for a page"
        in page.text
    )
    assert "Clips of the test set, playing" in str(page.tags)
    (run / "clips-generated.mp4").write_bytes(bytes(99))  # what is shown instead
    page = page_of(run)
    assert "too much for a page" not in page.text
    assert next(source["src"] for source in page.all("video")).startswith("data:video/mp4;")


def test_no_picture_is_drawn_by_another_program(tmp_path, monkeypatch):
    """PostScript under the name of a picture: Pillow would hand it to Ghostscript."""
    drawn = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **_: drawn.append(args))
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    for name in ("a.png", "a.gif"):
        (tmp_path / name).write_bytes(script)
        with pytest.raises(ValueError, match="damaged"):
            media.read_media(tmp_path / name)
    with pytest.raises(OSError):
        media.cut(tmp_path / "a.png", [(0, 0, 9, 9)])
    assert not drawn


@pytest.mark.parametrize("box", [(0, 0, 10**5, 10**5), (-9, 0, 4, 4), (4, 0, 4, 4)])
def test_a_part_lies_in_its_sheet(tmp_path, box):
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="does not hold"):
        media.cut(tmp_path / "a.png", [box])
