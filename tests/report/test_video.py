"""Clips that play, and the distances that are figures only if their self-test passes."""

from __future__ import annotations

import json

from report.folders import make_run, write
from report.test_page import ids_of, page_of


def test_video(tmp_path):
    page = page_of(make_run(tmp_path / "run", "video"))
    assert ids_of(page)[:3] == ["clips", "prediction", "self-test"]
    sources = [attributes["src"] or "" for attributes in page.all("img")]
    assert [source[:15] for source in sources] == [
        "data:image/gif;",
        "data:image/gif;",
        "data:image/png;",
    ]
    stills = page.all("source")
    assert [still["media"] for still in stills] == ["(prefers-reduced-motion: reduce)"] * 2
    charts = [
        attributes["aria-label"] or ""
        for attributes in page.all("svg")
        if "aria-label" in attributes
    ]
    assert charts[0].startswith(
        "PSNR of each predicted frame, from frame 1 to 8. this model: 21.4 dB at first"
    )
    assert "copy last: 15.5 dB at first" in charts[0]
    assert "Passed." in page.text
    assert "24.70" in page.text


def test_video_whose_distances_were_rejected(tmp_path):
    run = make_run(tmp_path / "run", "video")
    scores = json.loads((run / "eval-test.json").read_text())
    ratios = {name: scores[name] for name in ("frechet_ratio", "kernel_ratio")}
    test = {**scores["self_test"], "passed": False, "reason": "the net is blind"}
    write(
        run / "eval-test.json",
        {**scores, **dict.fromkeys(ratios), "rejected": ratios, "self_test": test},
    )
    text = " ".join(page_of(run).text.split())
    assert "Not passed. These distances are no figures of this run: the net is blind." in text
    assert "Generated, rejected 2.31 1.94" in text
