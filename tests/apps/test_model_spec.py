"""A description of a trained model comes back from JSON, or is refused with its rule."""

from dataclasses import dataclass

import pytest

from volano.apps.model_spec import ModelSpec
from volano.errors import CheckpointError
from volano.training import RunFolder


@dataclass(frozen=True, kw_only=True)
class Described(ModelSpec):
    file = "x.json"
    what = "an x"
    goal = "xs"
    bounds = {"width": (1, 8)}  # noqa: RUF012

    width: int
    classes: tuple[str, ...] = ()
    fps: float = 1.0


GIVEN = Described(width=2, classes=("a", "1"))


def test_it_comes_back(tmp_path):
    value = {**GIVEN.to_json(), "classes": ["a", 1]}
    assert list(value)[:2] == ["schema_version", "goal"]
    RunFolder(tmp_path).write_json("x.json", value)
    assert Described.of_run(RunFolder(tmp_path)) == GIVEN


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 2}, "x.json must be of schema version 1; got 2"),
        ({"goal": "ys"}, "x.json must describe an x; got ys"),
        ({"width": 9}, "x.json must state width as a whole number from 1 to 8"),
        ({"fps": 0}, "x.json must describe an x; got fps=0"),
        ({"more": 1}, "x.json must describe an x; got .*more"),
    ],
)
def test_another_is_refused(change, words):
    with pytest.raises(CheckpointError, match=words):
        Described.from_json({**GIVEN.to_json(), **change})
