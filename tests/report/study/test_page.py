"""The page of a study: what stands in it, what is measured and what is not, and that nothing in it
can run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from report.browser import CHROMIUM, chromium
from report.folders import write, write_lines
from report.test_page import HOSTILE, Outline
from volano.errors import UsageError
from volano.record.study import read_study
from volano.report import Importances, write_study_report


def make_study(path, num=9, *, is_failed=False, packs=None, **facts):
    """A study's folder: one trial in three completes, the others are cut at a third of their
    run."""
    path.mkdir(parents=True)
    settings = {
        "trials": num,
        "metric": "loss",
        "direction": "minimize",
        "eta": 3,
        "shares": [1 / 3, 1.0],
    }
    write(
        path / "study.json",
        {"schema_version": 1, "status": "finished", "settings": settings, **facts},
    )
    events = []
    for trial in range(num):
        params = {"lr": 0.001 * 1.1**trial, "width": [32, 64][trial % 2]}
        events.append({"event": "asked", "trial": trial, "params": params})
        if is_failed:
            events.append(
                {
                    "event": "ended",
                    "trial": trial,
                    "state": "failed",
                    "value": None,
                    "reason": "no luck",
                }
            )
            continue
        is_whole = trial % 3 == 0
        for rung in range(1 + is_whole):
            events.append(
                {"event": "rung", "trial": trial, "rung": rung, "share": [1 / 3, 1.0][rung],
                "epoch": 3.0 + 6 * rung, "value": 1.0 + 0.01 * trial - 0.5 * rung}
            )  # fmt: skip
        state, reason = ("complete", None) if is_whole else ("pruned", f"trial {trial} is cut")
        events.append(
            {"event": "ended", "trial": trial, "state": state, "value": 1.0, "reason": reason}
        )
    write_lines(path / "trials.jsonl", events)
    if packs is not None:
        write_lines(path / "packs.jsonl", packs)
    return path


def pack_of(**fields):
    base = {"assignment": 0, "rung": 0, "share": 1 / 3, "worker": 0, "numbers": [0, 1, 2],
    "engine": "mapped", "structure": "6fa0c2e1", "apart": ["width: 64, 128"], "refused": {},
    "seconds": 2.5, "startup_seconds": 0.5, "evaluation_seconds": 0.1, "steps": 4000}  # fmt: skip
    return {**base, "solo_seconds_per_step": 0.001, **fields}


def page_of(folder, importances=None):
    return Outline(write_study_report(folder, importances).read_text(encoding="utf-8"))


def words_of(page):
    return " ".join(page.text.split())


def test_the_best_trial_is_one_that_came_furthest(tmp_path):
    folder = make_study(tmp_path / "s")
    record = read_study(folder)
    best = record.find_best()
    assert (best.number, best.value) == (0, 0.5)
    assert [trial.number for trial in record.ranked] == [0, 3, 6, 1, 2, 4, 5, 7, 8]
    text = words_of(page_of(folder))
    assert "Best loss 0.5 trial 0" in text
    assert "9 3 complete, 6 cut" in text
    assert "trial 8 is cut" in text


def estimated(num=27, share=1 / 9, **shares):
    return Importances(shares=shares, num_trials=num, share=share)


def test_importances_say_over_what_they_were_estimated(tmp_path):
    folder = make_study(tmp_path / "s")
    text = words_of(page_of(folder, estimated(lr=0.25, width=0.75)))
    assert text.index("width 75.0 %") < text.index("lr 25.0 %")
    assert (
        "estimated from the values of 27 trials at 11.1 % of the run, the furthest that all of "
        "them have" in text
    )
    assert "27 trials at the end of the run" in words_of(
        page_of(folder, estimated(share=1.0, lr=1.0))
    )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "they were not estimated when this page was made"),
        (estimated(9), "they take at least 10 trials that have shown a value; there are 9."),
        (estimated(1), "there is 1."),
        (estimated(0), "there is none."),
        (
            Importances(shares={}, num_trials=12, share=1.0, is_flat=True),
            "there is no spread to explain in the values",
        ),
        (
            Importances(shares={}, num_trials=12, share=1.0, failure="TypeError: x"),
            "at the end of the run",
        ),
        (
            Importances(shares={}, num_trials=12, share=1.0, failure="TypeError: x"),
            "(TypeError: x).",
        ),
    ],
)
def test_importances_that_are_none_say_why(tmp_path, found, words):
    assert words in words_of(page_of(make_study(tmp_path / "s"), found))


def test_only_failures(tmp_path):
    page = page_of(make_study(tmp_path / "s", 3, is_failed=True))
    text = words_of(page)
    assert "no trial has shown a number" in text
    assert "trials 0, 1, 2 no luck" in text
    assert "No pack has run" in text
    assert page.all("img") == []


def test_a_long_study_shows_its_best_trials(tmp_path):
    text = words_of(page_of(make_study(tmp_path / "s", 300)))
    assert "200 of 300, all stand in trials.jsonl" in text


def test_names_and_reasons_are_text(tmp_path):
    folder = make_study(
        tmp_path / "s",
        packs=[pack_of(apart=[HOSTILE], refused={HOSTILE: HOSTILE}, engine=HOSTILE)],
        notices=[HOSTILE],
    )
    write_lines(
        folder / "trials.jsonl",
        [
            event
            for trial in range(3)
            for event in (
                {"event": "asked", "trial": trial, "params": {HOSTILE: HOSTILE, "$x_{": trial}},
                {
                    "event": "rung",
                    "trial": trial,
                    "rung": 0,
                    "share": 1.0,
                    "epoch": 1.0,
                    "value": 1.0 + trial,
                },
                {
                    "event": "ended",
                    "trial": trial,
                    "state": "failed" if trial == 2 else "pruned",
                    "reason": HOSTILE,
                },
            )
        ],
    )
    page = page_of(folder, Importances(shares={HOSTILE: 1.0}, num_trials=27, share=1.0))
    assert page.all("script") == []
    assert all((image["src"] or "").startswith("data:image/png") for image in page.all("img"))
    assert page.text.count("<script>") >= 8


def test_damage_costs_only_a_piece(tmp_path):
    folder = make_study(tmp_path / "s")
    (folder / "packs.jsonl").write_text('{"engine": 3, "numbers": "x", "seconds": null}\n{')
    (folder / "journal.log").write_text("no json\n")
    text = words_of(page_of(folder))
    assert "packs.jsonl: 1 of 2 lines are damaged" in text
    assert "Best loss 0.5" in text
    with pytest.raises(UsageError, match=r"A study's folder must hold study\.json"):
        write_study_report(tmp_path)


def test_neither_torch_nor_optuna_is_needed(tmp_path):
    folder = make_study(tmp_path / "s", packs=[pack_of()])
    code = (
        "import sys; from pathlib import Path; from volano.report.study.page import "
        "write_study_report; "
        f"write_study_report(Path({str(folder)!r})); sys.exit('optuna' in sys.modules or 'torch' "
        "in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (Debian's package chromium)"
)
def test_it_fits_the_screen(tmp_path):
    found = write_study_report(
        make_study(tmp_path / "s", 30, packs=[pack_of(apart=["r" * 300])]), estimated(lr=1.0)
    )
    with chromium() as page:
        for width, scheme in ((390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")):
            page.open(found, width, scheme)
            assert page.problems == []
            assert page.evaluate(
                "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
            )
            inside = (
                "[...document.querySelectorAll('#about-groups, .packs td')].every(e => "
                "e.scrollWidth <= e.clientWidth)"
            )
            assert page.evaluate(inside)
            right = (
                "Math.max(...[...document.querySelectorAll('.packs *')].map(e => "
                "e.getBoundingClientRect().right))"
            )
            assert page.evaluate(right) <= width
            kind = "[...document.images].map(i => [i.naturalWidth > 500, i.currentSrc === i.src])"
            assert page.evaluate(kind) == [[True, scheme == "light"]] * 2
