"""Pictures and clips that stand in a page themselves."""

from __future__ import annotations

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
