"""The page of a script's explanation, as HTML and in a browser."""

from __future__ import annotations

import dataclasses

import pytest

from report.browser import CHROMIUM, chromium
from report.test_browser import _CONTRAST, _TOO_WIDE
from script.search.test_explanation import make_record
from volano.errors import UsageError
from volano.script.plan import ScriptPlan
from volano.script.search.explanation import ScriptCandidate, explanation_of
from volano.script.search.page import render_script_page, write_script_page

HOSTILE = "<script>alert(1)</script>\x1b[31m" + "a-long-word-" * 30
BOTH = ScriptPlan(num_workers=2, persistent_workers=True, memory_format="channels_last")


@pytest.fixture
def explanation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = explanation_of(make_record(tmp_path), "train.py", ["--lr", "0.1"])
    candidates = (
        ScriptCandidate(plan=ScriptPlan(threads=1), status="measured", seconds=0.011, gain=0.9),
        ScriptCandidate(
            plan=ScriptPlan(precision="bf16"), status="struck", seconds=0.004, gain=2.5,
            reason="the first gradient is off by 6.0e-01; rounding explains 5.0e-02",
        ),
        ScriptCandidate(
            plan=BOTH, status="chosen", seconds=0.005, gain=2.0, reason="equal to the last bit",
            startup_seconds=2.5,
        ),
    )  # fmt: skip
    return dataclasses.replace(
        found, candidates=candidates, chosen=BOTH, gain=2.0,
        advice=("train.py:17  DataLoader(..., num_workers=2, persistent_workers=True)",),
        diff="--- a/train.py\n+++ b/train.py\n" + "+" + "x" * 200 + "\n",
        refused=(("torch.compile", "takes long to try"),), notices=(HOSTILE,),
    )  # fmt: skip


def test_what_stands_on_it(explanation, tmp_path):
    page = write_script_page(explanation, tmp_path / "page.html").read_text()
    for text in (
        "train.py --lr 0.1", "2.00 times as fast with num_workers=2", "waiting for data",
        "data.py:17", "from pageable memory, blocking", "rejected", "off by 6.0e-01", "not counted",
        "takes long to try", "DataLoader(..., num_workers=2", "+++ b/train.py",
    ):  # fmt: skip
        assert text in page, text
    assert "<script>" not in page
    assert "\x1b" not in page
    plain = dataclasses.replace(explanation, chosen=ScriptPlan(), candidates=(), advice=(), diff="")
    assert "No plan was tried" in render_script_page(plain)
    with pytest.raises(UsageError):
        write_script_page(explanation, tmp_path)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_it_fits_on_screens(explanation, tmp_path):
    path = write_script_page(explanation, tmp_path / "page.html")
    with chromium() as page:
        for width, scheme in ((500, "light"), (1200, "dark")):
            page.open(path, width, scheme)
            assert page.problems == []
            assert page.evaluate(_TOO_WIDE) == []
            ratio, where = page.evaluate(_CONTRAST)
            assert ratio >= 4.5, where
