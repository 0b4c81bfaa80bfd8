"""What code of a folder is loaded: what the person has named, or all if they trust the folder."""

import pytest

from volano.errors import UsageError
from volano.running import trust
from volano.running.trust import check_trusted, is_trusted, name_code, trust_folder


@pytest.fixture(autouse=True)
def stranger(monkeypatch):
    """A process in which a person has said nothing yet."""
    monkeypatch.setattr(trust, "_NAMED", set())
    monkeypatch.setattr(trust, "_TRUSTED", set())


def test_code_that_nobody_named_is_refused_with_both_remedies(tmp_path):
    with pytest.raises(UsageError) as caught:
        check_trusted("os:system", tmp_path)
    assert f"got os:system in {tmp_path}" in str(caught.value)
    assert "Give `trust`" in caught.value.remedy
    assert "`code` os:system" in caught.value.remedy
    with pytest.raises(UsageError, match="`build` os:system"):
        check_trusted("os:system", tmp_path, by="build")


def test_the_same_code_named_is_accepted_and_no_other(tmp_path):
    name_code("mine:task", None, 3, "image")
    check_trusted("mine:task", tmp_path)
    for other in ("mine:other", "mine.py:task", "image", None, {"a": "mine:task"}):
        with pytest.raises(UsageError, match="only if you trust it"):
            check_trusted(other, tmp_path)


def test_a_file_is_the_same_by_any_path_and_not_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name_code("mine.py:task")
    check_trusted(f"{tmp_path}/mine.py:task", tmp_path)
    for other in ("run/mine.py:task", "\0.py:task"):
        with pytest.raises(UsageError):
            check_trusted(other, tmp_path)


def test_a_module_of_the_current_folder_is_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    for named, other in (("mine:task", "mine.py:task"), ("mine.py:again", "mine:again")):
        name_code(named)
        check_trusted(other, tmp_path)
        monkeypatch.setattr(trust, "_NAMED", set())
    name_code("mine.py:task")
    for other in ("elsewhere.mine:task", "mine:other", "x" * 5000 + ":task"):
        with pytest.raises(UsageError):
            check_trusted(other, tmp_path)


def test_the_last_word_on_a_folder_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trust_folder(tmp_path / "run")
    assert is_trusted("run")
    check_trusted("os:system", "run")
    assert not is_trusted(tmp_path)
    trust_folder("run", False)
    assert not is_trusted(tmp_path / "run")
