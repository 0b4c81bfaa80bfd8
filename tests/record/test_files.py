"""Files in folders that others may have filled: no link is followed on writing, nothing endless is
read."""

import os
import stat
from pathlib import Path

import pytest

from volano.errors import UsageError
from volano.record import files


@pytest.fixture
def precious(tmp_path):
    """A file outside of the folder, to which a link in it leads."""
    path = tmp_path / "home" / "precious"
    path.parent.mkdir()
    path.write_text("precious")
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_a_link_is_replaced_and_not_followed(folder, precious):
    (folder / "a.json").symlink_to(precious)
    files.write_bytes(folder / "a.json", b"new")
    assert not (folder / "a.json").is_symlink()
    assert (folder / "a.json").read_text() == "new"
    assert precious.read_text() == "precious"
    assert [path.name for path in folder.iterdir()] == ["a.json"]


def test_what_fails_leaves_the_old_file_and_nothing_else(folder):
    (folder / "a.png").write_text("old")
    context = files.written(folder / "a.png")
    partial = context.__enter__()
    assert partial.suffix == ".png"
    partial.write_text("half")
    assert not context.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert (folder / "a.png").read_text() == "old"
    assert [path.name for path in folder.iterdir()] == ["a.png"]


def test_a_file_has_the_permissions_of_any_other(folder):
    files.write_bytes(folder / "a", b"")
    (folder / "b").touch()
    modes = {stat.S_IMODE((folder / name).stat().st_mode) for name in "ab"}
    assert len(modes) == 1


@pytest.mark.parametrize("link", ["symbolic", "dangling", "pipe"])
def test_nothing_is_appended_through_what_is_no_file(folder, precious, link):
    if link == "pipe":
        os.mkfifo(folder / "a.jsonl")
    else:
        target = precious if link == "symbolic" else precious.parent / "new"
        (folder / "a.jsonl").symlink_to(target)
    with pytest.raises(OSError):
        files.open_to_append(folder / "a.jsonl")
    assert [path.name for path in precious.parent.iterdir()] == ["precious"]
    assert precious.read_text() == "precious"


def test_a_file_with_another_name_is_copied_before_it_grows(folder, precious):
    (folder / "a.jsonl").hardlink_to(precious)
    with files.open_to_append(folder / "a.jsonl") as file:
        file.write(b" no more")
    assert precious.read_text() == "precious"
    assert (folder / "a.jsonl").read_text() == "precious no more"


def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "run.json")
    with pytest.raises(OSError, match="not a regular file"):
        files.read_bytes(folder / "run.json")


def test_a_folder_that_is_a_link_is_none_of_its_own(folder, precious):
    (folder / "checkpoints").symlink_to(precious.parent)
    with pytest.raises(OSError):
        files.make_folder(folder / "checkpoints")
    files.make_folder(folder / "states")
    files.make_folder(folder / "states")


def test_what_is_removed_behind_a_link_is_the_link(folder, precious):
    (folder / f"{files.PARTIAL}1").symlink_to(precious.parent)
    (folder / f"{files.PARTIAL}2").write_text("half")
    (folder / f"{files.PARTIAL}3").mkdir()
    files.tidy(folder)
    assert list(folder.iterdir()) == []
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_what_a_person_names_to_write_is_new_or_a_regular_file(folder, precious, kind):
    out = folder / "page.html"
    if kind == "pipe":
        os.mkfifo(out)
    else:
        out.symlink_to(precious if kind == "link" else "nowhere")
    with pytest.raises(UsageError, match="`out` must name a new file.*which is a (symbolic|pipe)"):
        files.check_out(out)
    out.unlink()
    files.check_out(out)
    out.touch()
    files.check_out(out)


def test_a_folder_is_written_over_links_and_not_through_them(folder, precious):
    (folder / "hf").mkdir()
    (folder / "hf" / "README.md").symlink_to(precious)
    (folder / "hf" / "kept").write_text("kept")
    with files.written_folder(folder / "hf") as partial:
        (partial / "README.md").write_text("new")
    assert (folder / "hf" / "README.md").read_text() == "new"
    assert sorted(path.name for path in (folder / "hf").iterdir()) == ["README.md", "kept"]
    (folder / "link").symlink_to(precious.parent)
    with pytest.raises(OSError), files.written_folder(folder / "link") as partial:
        (partial / "precious").write_text("new")
    assert precious.read_text() == "precious"
    assert sorted(path.name for path in folder.iterdir()) == ["hf", "link"]


def test_what_is_not_there_is_answered_with_what_is_near(folder):
    assert files.nearest("resnet8", ["vit", "resnet18"]) == ["resnet18"]
    (folder / "photos").mkdir()
    files.check_exists(folder / "photos")
    message = f"must exist; got .*photo. Nearest there: {folder / 'photos'}. Omit it"
    with pytest.raises(UsageError, match=message):
        files.check_exists(folder / "photo", remedy="Omit it")
    assert files.nearest_there(folder / "photo", holding="run.json") is None
    assert files.nearest_there(folder / "nowhere" / "photo") is None


def test_the_folder_of_another_kind_is_named(folder):
    (folder / "a study").mkdir()
    (folder / "a study" / "study.json").write_text("{}")
    said = str(files.no_folder_of(folder / "a study", "run.json"))
    assert "got " in said
    assert f"volano train --from '{folder / 'a study'}'" in said
    assert "Nearest there" in str(files.no_folder_of(folder / "a studie", "study.json"))


def test_the_newest_run_is_named_where_nothing_has_a_name_like_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = str(files.no_folder_of(Path(), "run.json"))
    assert said.endswith("got . Name the folder that train printed.")
    for age, name in enumerate(("image-2", "image-1", "study-1")):
        file = Path("runs", name, "study.json" if name == "study-1" else "run.json")
        file.parent.mkdir(parents=True)
        file.write_text("{}")
        os.utime(file, (1000 - age, 1000 - age))
    said = str(files.no_folder_of(Path("zzz"), "run.json"))
    newest = Path("runs", "image-2")
    assert f"got zzz, which does not exist. The newest here: {newest}. Name the folder" in said
