"""Search spaces as data."""

import json
import os

import optuna
import pytest

from volano.errors import UsageError
from volano.study.search_space import Range, SearchSpace

SPACE = {
    "lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "depth": {"low": 1, "high": 4},
    "drop": {"low": 0.0, "high": 0.5, "step": 0.1},
    "smoothing": [0, 0.05, 0.1],
    "net": ["a", "b"],
}


def test_a_space_goes_to_json_and_back():
    assert SearchSpace.from_json(SPACE).to_json() == SPACE
    assert SearchSpace.from_json(SearchSpace.from_json(SPACE).to_json()) == SearchSpace.from_json(
        SPACE
    )


def test_it_asks_a_trial_for_a_point(tmp_path):
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    space = SearchSpace.load(tmp_path / "space.json")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [space.suggest(study.ask()) for _ in range(30)]
    assert all(1e-4 <= point["lr"] <= 1e-2 for point in points)
    assert {point["depth"] for point in points} == {1, 2, 3, 4}
    assert {round(point["drop"], 6) for point in points} <= {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert {point["smoothing"] for point in points} == {0, 0.05, 0.1}
    assert sum(point["lr"] < 1e-3 for point in points) > 8  # by factors: half of them
    assert (
        optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)
        == study.trials[0].distributions["lr"]
    )


def test_toml_is_read_too(tmp_path):
    (tmp_path / "space.toml").write_text(
        "smoothing = [0, 0.1]\n[lr]\nlow = 0.001\nhigh = 0.1\nlog = true\n"
    )
    space = SearchSpace.load(tmp_path / "space.toml")
    assert space.parameters == {"smoothing": (0, 0.1), "lr": Range(low=0.001, high=0.1, log=True)}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"lr": {"low": 1.0, "high": 0.1}},
            "lr: A range must go from low up to high; got low=1.0, high=0.1",
        ),
        (
            {"lr": {"low": 0.0, "high": 0.1, "log": True}},
            r"lr: A range by factors \(log\) must begin above 0; got low=0.0",
        ),
        ({"lr": {"low": 0.1, "high": 1.0, "step": -1}}, "step must be a number above 0"),
        ({"lr": {"low": "a", "high": 1.0}}, "low of a range must be a finite number; got 'a'"),
        ({"lr": {"low": 0.1, "high": float("nan")}}, "high of a range must be a finite number"),
        ({"lr": {"low": 0.1, "high": 10**400}}, "high of a range must be a finite number"),
        (
            {"lr": {"low": 0.1, "high": 1.0, "log": "false"}},
            "log of a range must be true or false; got 'false'",
        ),
        ({"lr": [float("nan")]}, "Choices of lr must be numbers"),
        (
            {"lr": {"low": 0.1, "top": 1.0}},
            "lr must be a list of choices, or a range with low and high.*For example",
        ),
        ({"lr": 0.1}, "lr must be a list of choices"),
        ({"lr": []}, "Choices of lr must be numbers"),
        ({"lr": [[1]]}, "Choices of lr must be numbers"),
        ({}, "A search space must have a parameter; got none"),
        ([1], "A search space must name its parameters; got list"),
    ],
)
def test_what_cannot_be_meant_is_refused(value, message):
    with pytest.raises(UsageError, match=f"(?s){message}"):
        SearchSpace.from_json(value)


def test_a_file_that_is_none_is_told(tmp_path):
    with pytest.raises(UsageError, match="A search space must be readable; got .*No such file"):
        SearchSpace.load(tmp_path / "nothing.json")
    (tmp_path / "space.json").write_text("{")
    with pytest.raises(
        UsageError, match=r"A search space must be a JSON or TOML file; got .*space\.json"
    ):
        SearchSpace.load(tmp_path / "space.json")


@pytest.mark.parametrize(
    ("name", "content"),
    [("deep.json", b"[" * 10**5), ("no.json", bytes([255])), ("no.toml", b"a=[")],
)
def test_a_file_that_holds_no_space(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match="A search space must be a JSON or TOML file"):
        SearchSpace.load(tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "space.json")
    with pytest.raises(UsageError, match="must be readable; got .*not a regular file"):
        SearchSpace.load(tmp_path / "space.json")
