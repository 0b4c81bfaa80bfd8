"""The page of a run: what stands in it, that nothing in it can run or be loaded, and that damage
costs only a piece."""

from __future__ import annotations

import html.parser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from report.explanations import LONG_REASON, make_explanation
from report.folders import make_run, scores_of, write, write_lines
from volano.errors import RunError, UsageError
from volano.report import write_page

KINDS = ("image", "text", "video", "python")
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


class Outline(html.parser.HTMLParser):
    """Tags with their attributes, the text, and whether every tag is closed."""

    VOID = frozenset({"meta", "link", "img", "source", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag in ("td", "th", "dt", "dd", "li", "div"):
            self.text += " "

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(run: Path) -> Outline:
    return Outline(write_page(run).read_text(encoding="utf-8"))


def ids_of(page: Outline) -> list[str]:
    return [attributes["id"] or "" for attributes in page.all("section") if "id" in attributes]


class TestWhatStandsInIt:
    def test_image(self, tmp_path):
        page = page_of(make_run(tmp_path / "run", "image"))
        assert ids_of(page) == [
            "results",
            "hardest",
            "augmented",
            "curves",
            "task",
            "plan",
            "notices",
        ]
        for text in (
            "95.24 %",
            "always the commonest class: 33.33 %",
            "left taken for middle",
            "left/0.png",
        ):
            assert text in page.text
        assert len(page.all("img")) == 3
        titles = [a["title"] for a in page.all("td") if "right" in (a.get("class") or "")]
        assert titles == [f"20 of {name} taken for {name}" for name in ("left", "middle", "right")]

    def test_text(self, tmp_path):
        page = page_of(make_run(tmp_path / "run", "text"))
        assert ids_of(page) == ["compression", "previews", "curves", "task", "plan", "notices"]
        order = [
            page.text.index(text)
            for text in ("this model", "bz2, after the training text", "xz, after")
        ]
        assert order == sorted(order)
        assert "Read at most size bytes." in page.text
        assert len([a for a in page.all("div") if a.get("class") == "preview"]) == 4

    def test_the_plan_names_the_class_of_every_knob_that_differs(self, tmp_path):
        page = page_of(make_run(tmp_path / "run", "python"))
        for knob, instead, semantics in (
            ("precision", "bf16 instead of fp32", "precision"),
            ("memory_format", "channels_last instead of contiguous", "rounding"),
            ("feed", "resident instead of ring", "exact"),
        ):
            assert re.search(rf"{knob}\s*{instead}\s*{semantics}", page.text)

    def test_spikes_skipped_steps_and_quarantine(self, tmp_path):
        run = make_run(tmp_path / "run", "python")
        lines = (run / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        records[7]["spike"] = True
        write_lines(run / "metrics.jsonl", records)
        reason = "the gradient was not finite"
        write_lines(
            run / "numerics.jsonl",
            [{"step": 212, "reason": reason, "examples": [3, 77], "action": "skipped"}],
        )
        write_lines(
            run / "quarantine.jsonl",
            [{"set": "valid", "index": 3, "path": None, "reason": "KeyError: 'y'"}],
        )
        page = page_of(run)
        paths = [
            attributes
            for attributes in page.all("path")
            if "spike" in (attributes.get("class") or "")
        ]
        assert len(paths) == 2  # in the legend and in the chart
        assert {"numerics", "quarantine"} <= set(ids_of(page))
        for text in (
            "loss spike",
            "skipped step",
            reason,
            "3, 77",
            "example 3 of valid",
            "KeyError: 'y'",
        ):
            assert text in page.text

    def test_pictures_and_tables_have_words_beside_them(self, tmp_path):
        for kind in KINDS:
            page = page_of(make_run(tmp_path / kind, kind))
            assert all(attributes.get("alt") for attributes in page.all("img"))
            assert len(page.all("table")) == len(page.all("caption"))
            svgs = page.all("svg")
            assert all(
                a.get("aria-hidden") == "true" or (a.get("role") == "img" and a["aria-label"])
                for a in svgs
            )


class TestSelfContained:
    @pytest.mark.parametrize("kind", KINDS)
    def test_nothing_is_loaded_and_nothing_can_run(self, tmp_path, kind):
        page = page_of(make_run(tmp_path / "run", kind))
        assert not page.all("script")
        for _, attributes in page.tags:
            for name, value in attributes.items():
                assert not name.startswith("on")
                if name in ("src", "srcset", "href", "poster", "action"):
                    assert (value or "").startswith("data:")
        text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
        assert not re.search(r"https?://|url\(|@import", text)
        assert "default-src 'none'" in text

    def test_reading_and_writing_load_no_torch(self, tmp_path):
        run = make_run(tmp_path / "run", "video")
        code = (
            f"import sys; from volano.report import write_page; write_page({str(run)!r}); "
            "print('torch' in sys.modules)"
        )
        assert (
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            ).stdout
            == "False\n"
        )


class TestHostileText:
    @pytest.mark.parametrize("kind", KINDS)
    def test_names_classes_and_samples_are_text(self, tmp_path, kind):
        run = make_run(
            tmp_path / "<b>run", kind, notices=[HOSTILE], reason=HOSTILE, name=HOSTILE,
            source={"kind": kind, "origin": HOSTILE, "dials": {HOSTILE: HOSTILE}},
        )  # fmt: skip
        write(
            run / "task.json",
            {"model": {"class": HOSTILE, "made_by": HOSTILE}, "name": HOSTILE, "digest": HOSTILE},
        )
        write(run / "plan.json", {"precision": HOSTILE, HOSTILE: HOSTILE})
        write_lines(
            run / "metrics.jsonl", [{"step": step, "loss": 1.0, HOSTILE: 2.0} for step in (1, 2)]
        )
        write_lines(run / "quarantine.jsonl", [{"path": HOSTILE, "reason": HOSTILE}])
        write_lines(
            run / "numerics.jsonl",
            [{"step": 1, "reason": HOSTILE, "module": HOSTILE, "examples": [HOSTILE]}],
        )
        write_lines(
            run / "previews.jsonl",
            [{"step": 1, "prompt": HOSTILE, "text": HOSTILE}, {"step": 2, HOSTILE: 1}],
        )
        if kind in ("image", "text"):
            write(
                run / "eval-test.json",
                {**scores_of([HOSTILE, "other"]), "candidates": {HOSTILE: 0.5}},
            )
        items = [
            {
                "name": HOSTILE,
                "true": HOSTILE,
                "predicted": HOSTILE,
                "probability": 1,
                "box": [0, 0, 9, 9],
            }
        ]
        write(run / "top-losses.json", {"items": items})
        page = page_of(run)
        assert not page.all("script")
        assert not any("onerror" in attributes for _, attributes in page.tags)
        assert HOSTILE in page.text
        assert "<b>" in page.text

    def test_what_no_page_may_hold_is_replaced(self, tmp_path):
        run = make_run(tmp_path / "run", "text")
        (run / "previews.jsonl").write_text('{"step": 1, "text": "a\\u0000b\\ud800c"}\n')
        assert "a�b�c" in page_of(run).text


class TestDegrades:
    def test_a_folder_that_is_no_run(self, tmp_path):
        with pytest.raises(UsageError, match=r"must hold run\.json; got .*nothing"):
            write_page(tmp_path / "nothing")

    @pytest.mark.parametrize("kind", KINDS)
    def test_only_run_json_is_left(self, tmp_path, kind):
        run = make_run(tmp_path / "run", kind)
        for path in run.iterdir():
            if path.name != "run.json":
                path.unlink()
        page = page_of(run)
        for name in ("task.json", "plan.json", "metrics.jsonl"):
            assert f"{name} is not there" in page.text
        if kind != "python":
            assert "eval-test.json is not there" in page.text

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        "content", [b"", b"\xff\xfe{", b"[1, 2]", b"null", b'{"a": [[[', b"{}"], ids=str
    )
    def test_any_file_may_be_damaged(self, tmp_path, kind, content):
        whole = make_run(tmp_path / "run", kind)
        for path in sorted(whole.iterdir()):
            before = path.read_bytes()
            path.write_bytes(content)
            page_of(whole)
            path.write_bytes(before)
            (whole / "report.html").unlink()

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("value", [None, True, "x", 1e308, [None], {"a": None}], ids=repr)
    def test_any_field_may_be_something_else(self, tmp_path, kind, value):
        run = make_run(tmp_path / "run", kind)
        # A task's and a plan's fields mean the same in every kind of run, and so do those of a run
        # that are the same.
        common = make_run(tmp_path / "common", "python")
        known = {} if kind == "python" else json.loads((common / "run.json").read_text())
        for name in (
            ("task.json", "plan.json", "run.json")
            if kind == "python"
            else ("eval-test.json", "run.json")
        ):
            whole = json.loads((run / name).read_text())
            for field in whole:
                if name == "run.json" and field in known and known[field] == whole[field]:
                    continue
                write(run / name, {**whole, field: value})
                page_of(run)
            write(run / name, whole)
            # Only the scores are shown with them, and they take the longest.
            for path in run.glob("*.gif"):
                path.unlink()
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for field in records[0]:
            write_lines(run / "metrics.jsonl", [{**record, field: value} for record in records])
            page_of(run)

    @pytest.mark.parametrize(
        ("status", "text"),
        [
            ("failed", "This run failed: a disk is full."),
            ("stopped", "stopped before its end. It stands at step 400 of 400"),
            ("running", "had not ended"),
            ("starting", "had not ended"),
        ],
    )
    def test_a_run_without_an_end_says_so(self, tmp_path, status, text):
        run = make_run(
            tmp_path / "run",
            "image",
            status=status,
            reason="a disk is full.",
            metrics=None,
            seconds=None,
        )
        (run / "eval-test.json").unlink()
        page = page_of(run)
        assert text in page.text
        assert "missing" not in ids_of(page)  # nothing is expected of it

    def test_a_page_that_cannot_be_written(self, tmp_path):
        run = make_run(tmp_path / "run", "python")
        with pytest.raises(
            RunError,
            match=r"The report's file must be writable; got .*Name another file with `out`",
        ):
            write_page(run, tmp_path / "not" / "there.html")
        assert not list(tmp_path.glob("*.partial"))

    @pytest.mark.parametrize("out", ["folder.html", ".", ".."])
    def test_a_folder_is_no_file(self, tmp_path, monkeypatch, out):
        run = make_run(tmp_path / "run", "python")
        (tmp_path / "folder.html").mkdir()
        monkeypatch.chdir(tmp_path)
        with pytest.raises(
            UsageError,
            match=r"`out` of a report must name a file; got .* is a folder. Give `out` as .*\.html",
        ):
            write_page(run, out)
        assert not list(tmp_path.glob("*.partial"))


def test_a_long_run_stays_small(tmp_path):
    run = make_run(tmp_path / "run", "python")
    records = [{"step": step, "loss": 1 + 1 / step, "lr": 0.1} for step in range(1, 50_001)]
    records[25_000]["loss"] = 9.0
    write_lines(run / "metrics.jsonl", records)
    page = page_of(run)
    assert (run / "report.html").stat().st_size < 100_000
    labels = [attributes.get("aria-label") or "" for attributes in page.all("svg")]
    assert any("between 1 and 9" in label for label in labels)  # the peak is not thinned away


class TestPlanning:
    def test_what_the_planner_found(self, tmp_path):
        run = make_run(tmp_path / "run", "image")
        write(run / "explanation.json", make_explanation().to_json())
        page = page_of(run)
        words = " ".join(page.text.split())
        for text in (
            "The plan: bf16 + channels_last + fused + resident + keep memory",
            "Candidates raced on this device. Planning took 4.1 s. Gain: 1.77 times as fast as "
            "plain eager",
            "activations 380 MiB",
            "budget 1.00 GiB: 68 % used at most, 324 MiB left",
            "compute 28.8 ms",
            "a step of 41.2 ms is predicted, 38.4 ms were measured",
            "All of them: resident.",
            "plain eager exact 69.0 71.4 440 ms 2.9 min 590 MiB slower: 1.84x the chosen one's "
            "time",
            f"rejected: {LONG_REASON.strip()}",
            "threads 2 forbidden by you",
            "What the planner noted memory kept for the data: 12 MiB",
        ):
            assert text in words
        assert "cannot be shown" not in words

    def test_without_one_nothing_is_missing(self, tmp_path):
        page = page_of(make_run(tmp_path / "run", "image"))
        assert "The plan:" not in page.text
        assert "missing" not in ids_of(page)

    @pytest.mark.parametrize(
        "changes",
        [
            {"schema_version": 2},
            {"plan": {"device": "cpu"}},
            {"seconds": [1]},
            {"memory": {"peak": "much"}},
            {"num_steps": 10**400},
            {"notices": "one"},
            {"candidates": [3]},
        ],
    )
    def test_one_that_is_not_whole_is_left_out_and_said_to_be(self, tmp_path, changes):
        run = make_run(tmp_path / "run", "image")
        write(run / "explanation.json", {**make_explanation().to_json(), **changes})
        page = page_of(run)
        assert "The plan:" not in page.text
        assert "planning cannot be shown: " in page.text
        assert "plan" in ids_of(page)

    @pytest.mark.parametrize("text", ["[1, 2]", '{"plan":', "\0"])
    def test_damage_costs_only_this_piece(self, tmp_path, text):
        run = make_run(tmp_path / "run", "image")
        (run / "explanation.json").write_text(text)
        page = page_of(run)
        assert "explanation.json" in page.text
        assert ids_of(page)[:1] == ["results"]

    def test_nothing_hostile_gets_in(self, tmp_path):
        run = make_run(tmp_path / "run", "image")
        bad = make_explanation(task=HOSTILE, device_name=HOSTILE, notices=(HOSTILE,)).to_json()
        bad["candidates"][0]["reason"] = bad["refused"][0]["reason"] = bad["origin"] = HOSTILE
        write(run / "explanation.json", bad)
        page = page_of(run)
        assert page.all("script") == []
        assert all("onerror" not in attributes for attributes in page.all("img"))
