"""When ranks of trials are noise."""

import pytest

from volano.record.study import RungValue, TrialResult
from volano.report.study.rank_noise import rank_notices


def trial(number, value, *steps, state="complete"):
    rungs = tuple(
        RungValue(
            rung=rung,
            share=3.0**rung / 9,
            step=step,
            epoch=0.0,
            value=value,
            metrics={},
            training_loss=0.0,
            seconds=1.0,
        )
        for rung, step in enumerate(steps)
    )
    return TrialResult(number=number, params={}, state=state, rungs=rungs)


def notices(trials, metric="loss", direction="minimize", num_valid=None):
    return rank_notices(trials, metric=metric, direction=direction, num_valid=num_valid)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((12, 36, 108), []),
        ((3, 9, 27), ["ranks are noise: whole trials have 27 steps, under 30"]),
        ((4, 12, 36), ["ranks are noise at the first rung, after 4 steps"]),
    ],
)
def test_few_steps(steps, words):
    said = notices([trial(0, 0.1, *steps), trial(1, 0.2, *steps[:1], state="pruned")])
    assert [text.startswith(word) for text, word in zip(said, words, strict=True)] == [True] * len(
        words
    )


def test_accuracies_that_so_few_examples_cannot_tell_apart():
    trials = [trial(number, value, 100) for number, value in enumerate((0.90, 0.89, 0.5, 0.91))]
    accuracy = {"metric": "accuracy", "direction": "maximize"}
    assert notices(trials, **accuracy, num_valid=200) == [
        "200 examples are too few to tell the best trial (3) from 2 others (0, 1): their "
        "accuracies lie within its 95 % interval"
    ]
    assert notices(trials, **accuracy, num_valid=1_000_000) == []
    assert notices(trials, **accuracy) == []
    assert notices(trials, num_valid=200) == []


def test_one_trial_has_no_rank():
    assert notices([trial(0, 0.1, 2), TrialResult(number=1, params={})]) == []
