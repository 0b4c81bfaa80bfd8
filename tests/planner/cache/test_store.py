"""Plans in the user's cache folder: written, found by the beginning of a name, forgotten."""

import pytest

from report.explanations import make_explanation
from volano.errors import UsageError
from volano.planner.cache import store
from volano.planner.cache.store import (
    find_remembered,
    forget_all,
    list_remembered,
    recall,
    remember,
)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "volano" / "plans"


def test_a_plan_comes_back_as_it_was_given(folder):
    explanation = make_explanation()
    assert recall("ab12") is None
    assert remember("ab12", explanation, may_split=True) is None
    found = recall("ab12")
    assert (found.fingerprint, found.may_split) == ("ab12", True)
    assert found.explanation == explanation
    assert found.path == folder / "ab12.json"
    assert [path.name for path in folder.iterdir()] == ["ab12.json"]


def test_the_newest_comes_first_and_what_cannot_be_read_is_left_out(folder, monkeypatch):
    for number, name in enumerate(("old", "new")):
        monkeypatch.setattr(store.time, "time", lambda number=number: 1000.0 + number)
        remember(name, make_explanation())
    (folder / "damaged.json").write_text("{")
    assert [plan.fingerprint for plan in list_remembered()] == ["new", "old"]
    assert forget_all() == 3
    assert list_remembered() == []
    assert forget_all() == 0


def test_a_beginning_must_be_that_of_one_plan(monkeypatch):
    for number, name in enumerate(("abc1", "abd2")):
        monkeypatch.setattr(store.time, "time", lambda number=number: 1000.0 + number)
        remember(name, make_explanation())
    assert find_remembered("abd").fingerprint == "abd2"
    with pytest.raises(UsageError, match="'ab', with which 2 begin") as caught:
        find_remembered("ab")
    assert "There are: abd2, abc1" in caught.value.remedy
    with pytest.raises(UsageError, match="'x', with which none begins"):
        find_remembered("x")
    with pytest.raises(UsageError):
        find_remembered("")


def test_none_is_said_if_none_is_remembered():
    with pytest.raises(UsageError, match="No plan is remembered yet"):
        find_remembered("ab")
