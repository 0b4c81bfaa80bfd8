"""From figures to a verdict: a table of cases."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volano.report.verdict import Score, Verdict, judge, longer_command, wilson_interval


def accuracy(value, num, trivial=0.1):
    return Score(
        name="test accuracy", value=value, trivial={"the commonest class": trivial},
        num_examples=num,
    )  # fmt: skip


def bits(value):
    return Score(
        name="bits per byte", value=value, trivial={"bz2": 1.81, "xz": 1.9}, is_more_better=False
    )


def psnr(value):
    return Score(name="first frame", value=value, trivial={"copy last": 15.1}, digits=2, unit=" dB")


CASES = {
    "well above": (600, (1.0, 0.5, 0.499), accuracy(0.95, 10_000), True, False, "better than"),
    "below": (600, (), accuracy(0.05, 10_000), False, True, "no better than the commonest"),
    "too few to tell": (600, (), accuracy(0.5, 20, 0.4), False, True, "examples are too few"),
    "few but clear": (600, (), accuracy(0.8, 40), True, False, "40 test examples are few"),
    "one step": (1, (2.3,), accuracy(0.226, 10_000), False, True, "one step was trained"),
    "a solved head": (1, (), replace(accuracy(0.8, 10_000), is_solved=True), True, False, "better"),
    "some steps": (29, (), None, False, True, "only 29 steps"),
    "text, worse": (600, (), bits(3.39), False, True, "no better than bz2 (1.8100)"),
    "text, better": (600, (), bits(1.7), True, False, "better than bz2 (1.8100)"),
    "video": (600, (), psnr(21.4), True, False, "better than copy last (15.10 dB)"),
    "still improving": (600, (3.0, 2.5, 2.2), bits(1.7), True, True, "is 12% below the one before"),
    "at its end": (600, (3.0, 2.21, 2.2), bits(1.7), True, False, "better than bz2"),
    "chance in few": (600, (1.0, 0.02, 0.015), accuracy(0.993, 270), True, False, "better than"),
    "worse again": (600, (2.0, 2.5), None, False, False, "has risen, from 2 at first to 2.5"),
    "own task": (600, (2.0, 1.99), None, True, False, "has fallen, from 2 at first to 1.99"),
    "no evaluation": (600, (), None, True, False, "nothing to compare it with"),
    "no number": (600, (), bits(math.nan), False, False, "bits per byte is not a number"),
    "loss of none": (600, (2.0, math.nan), None, False, False, "loss is not a number"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_verdicts(case):
    num_steps, losses, score, is_good, wants_more, text = CASES[case]
    verdict = judge(num_steps=num_steps, losses=losses, score=score)
    assert (verdict.is_good, verdict.wants_more) == (is_good, wants_more)
    assert text in " ".join(verdict.lines())
    assert verdict.lines()[0].startswith("finished:" if is_good else "finished, but:")


def test_bad_news_comes_first():
    verdict = judge(num_steps=5, losses=(3.0, 2.0), score=accuracy(0.9, 10_000))
    assert verdict.reasons[0].startswith("only 5 steps")
    assert len(verdict.reasons) == 3


def test_the_interval_is_wilsons():
    # Newcombe 1998, Statistics in Medicine 17:857, table I: 81 of 263, 15 of 148, 0 of 20.
    for hits, num, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
                                 (0, 20, 0.0, 0.1611)):  # fmt: skip
        assert wilson_interval(hits / num, num) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_an_interval_holds_its_share_and_stays_within_bounds(num, share):
    low, high = wilson_interval(share, num)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1


def test_json_and_back_whatever_it_has_become():
    verdict = judge(num_steps=1, score=bits(1.0))
    read = Verdict.of_json(verdict.to_json())
    assert (read.is_good, read.reasons) == (verdict.is_good, verdict.reasons)
    assert Verdict.of_json(None) is Verdict.of_json([]) is None
    assert Verdict.of_json({"is_good": "yes", "reasons": 3, "longer": 4}) == Verdict(is_good=False)


@pytest.mark.parametrize(
    ("words", "length", "num_steps", "command"),
    [
        ("image", {"minutes": 3.0}, 600, "volano train image --minutes 6"),
        ("my books", {"minutes": 0.5}, 600, "volano train 'my books' --minutes 1"),
        ("image", {"epochs": 4.0}, 600, "volano train image --epochs 8"),
        # One step took 6 s of 66: a hundred take 10 minutes more than the minute of the rest.
        ("image", {"minutes": 1.0}, 1, "volano train image --minutes 11"),
        ("image", {"minutes": "long"}, 600, None),
        ("image", {}, 600, None),
    ],
)
def test_the_command_of_a_longer_training(words, length, num_steps, command):
    again = {"words": ["volano", "train", words], **length}
    seconds = {"train": 6.0, "total": 66.0}
    assert longer_command(again, seconds=seconds, num_steps=num_steps) == command


@pytest.mark.parametrize("again", [None, [], {"words": []}, {"words": 3, "minutes": 1.0}])
def test_where_it_is_not_known(again):
    assert longer_command(again, seconds={}, num_steps=600) is None
