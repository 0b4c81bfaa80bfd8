"""What packing gained is what was measured, and is said to be none where it is."""

from __future__ import annotations

import pytest

from report.study.test_page import make_study, pack_of, page_of, words_of
from volano.record.study import read_study
from volano.report.study.packs import packing_of


def test_what_packing_gained_is_what_was_measured(tmp_path):
    folder = make_study(tmp_path / "s", packs=[pack_of(), pack_of(solo_seconds_per_step=None)])
    text = words_of(page_of(folder))
    assert (
        "2 packs made 8,000 configuration-steps in 4.0 s of training and 1.0 s of start-up" in text
    )
    assert (
        "4,000 configuration-steps (50 % of theirs, where that was measured) in 2.0 s of training"
        in text
    )
    assert "would have taken about 4.0 s" in text
    assert (
        "training 2.00 times as fast, or 1.60 times with the 500 ms of start-up counted against it"
        in text
    )
    assert "width: 64, 128" in text


@pytest.mark.parametrize(
    ("solo", "words"),
    [
        (None, "was not measured in this study"),
        (0.0001, "packing cost time, it trained 0.20 times as fast"),
        (0.0005, "packing gained nothing, and its start-up took 500 ms"),
    ],
)
def test_a_gain_that_is_none(tmp_path, solo, words):
    folder = make_study(tmp_path / "s", packs=[pack_of(solo_seconds_per_step=solo)])
    assert words in words_of(page_of(folder))


def test_one_trial_at_a_time_is_no_gain_and_no_loss(tmp_path):
    loop = pack_of(engine="loop", solo_seconds_per_step=1e-6)
    text = words_of(page_of(make_study(tmp_path / "all", packs=[loop])))
    assert (
        "All were trained one trial at a time (engine loop): packing gained nothing and cost "
        "nothing" in text
    )
    assert "packing cost time" not in text
    assert "none: one at a time" in text
    text = words_of(page_of(make_study(tmp_path / "some", packs=[loop, pack_of()])))
    assert "training 2.00 times as fast" in text
    assert "Another 4,000 configuration-steps were trained one trial at a time" in text


def test_seconds_of_several_workers_are_said_to_have_passed_at_once(tmp_path):
    one = make_study(tmp_path / "one", packs=[pack_of(), pack_of()])
    assert "side by side" not in words_of(page_of(one))
    two = make_study(tmp_path / "two", packs=[pack_of(), pack_of(worker=1)])
    assert "added up over 2 workers that trained side by side" in words_of(page_of(two))


def test_a_structure_is_a_row(tmp_path):
    few, slow = "its steps are too few", "slower than the loop"
    packs = [
        pack_of(apart=[], engine="loop", refused={"lowered": few}),
        pack_of(apart=["width: 64, 128"], refused={"compiled": few}, numbers=[3]),
        pack_of(
            apart=["width: 64, 128", "batch_size: 32, 64"],
            refused={"mapped": slow, "compiled": few},
            worker=1,
        ),
        pack_of(structure="0c1d2e3f", apart=["width: 128, 64"], steps=100),
    ]
    first, second = packing_of(read_study(make_study(tmp_path / "s", packs=packs)), 100).groups
    assert (first.engines, first.packs, first.members) == ("loop, mapped", "3", "1 to 3")
    assert first.apart == ("width: 64, 128", "batch_size: 32, 64")
    assert first.refused == (f"lowered: {few}", f"compiled: {few}", f"mapped: {slow}")
    assert (second.packs, second.steps, second.gain, second.refused) == (
        "1",
        "100",
        "0.05 times",
        (),
    )
