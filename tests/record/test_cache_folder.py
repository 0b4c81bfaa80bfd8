"""The user's cache folder: its place on each system, and what is written there."""

import pytest

from volano.record import cache_folder


def test_a_record_that_cannot_be_written_says_why_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    why = cache_folder.write_record(tmp_path / "file" / "plans" / "x.json", {})
    assert why.startswith(str(tmp_path / "file" / "plans"))
    (tmp_path / "taken.json").mkdir()
    assert "taken" not in cache_folder.write_record(tmp_path / "taken.json", {}).removeprefix(
        str(tmp_path)
    )
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize(
    ("system", "place"), [("darwin", "Library/Caches"), ("linux", ".cache"), ("win32", "Local")]
)
def test_each_system_has_its_place(monkeypatch, tmp_path, system, place):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    monkeypatch.setattr(cache_folder.sys, "platform", system)
    monkeypatch.setattr(cache_folder.Path, "home", lambda: tmp_path)
    assert cache_folder.cache_folder() == tmp_path / place / "volano"
