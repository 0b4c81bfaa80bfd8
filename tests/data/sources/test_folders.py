"""Folders of runs are not read as data, by any source."""

import os
import shutil
import socket

import numpy as np
import pytest
from PIL import Image

from volano.data.sources import (
    files_to_predict,
    find_texts,
    is_image,
    listed,
    read_clip_folder,
    read_image_sets,
    read_labelled_texts,
    read_texts,
)
from volano.data.sources.folders import NO_FILE, file_named, subfolders, walk
from volano.data.sources.video.clip_files import listed_clips
from volano.errors import DataError, UsageError
from volano.record.files import is_there


@pytest.fixture
def run(tmp_path):
    """What a run leaves, in miniature, beside the data."""
    folder = tmp_path / "data" / "runs" / "one"
    (folder / "generated").mkdir(parents=True)
    for name in ("run.json", "task.json"):
        (folder / name).write_text("{}")
    (folder / "report.html").write_text("text")
    for where in (folder, folder / "generated"):
        Image.new("RGB", (16, 16), "red").save(where / "picture.png")
        clip(where / "clip.gif", seed=9)
    return folder


def clip(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(seed).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(path, save_all=True, append_images=others, duration=100)


def test_texts(run, tmp_path):
    (tmp_path / "data" / "a.txt").write_text("one")
    shutil.copytree(run, tmp_path / "data" / "two")
    source = find_texts(tmp_path / "data")
    assert [document.name for document in source.read()] == ["a.txt"]
    assert source.notices == (f"2 folders of runs are not read as data: {run}",)


def test_labelled_texts(run, tmp_path):
    root = tmp_path / "data"
    for name in ("x", "y"):
        (root / name).mkdir()
        (root / name / "1.txt").write_text(f"text {name}")
    shutil.copytree(run, root / "x" / "run")
    shutil.copytree(run, root / "z")
    sets = read_labelled_texts(root)
    assert sets.train.texts == ("text x", "text y")
    assert sets.notices == (f"3 folders of runs are not read as data: {run}",)


def test_images(run, tmp_path):
    root = tmp_path / "data"
    for name in ("cat", "dog"):
        (root / name).mkdir()
        Image.new("RGB", (16, 16), "blue").save(root / name / "1.png")
    shutil.copytree(run, root / "cat" / "run")
    shutil.copytree(run, root / "z")
    sets = read_image_sets(root)
    assert sets.train.names == ("cat/1.png", "dog/1.png")
    assert any("3 folders of runs are not read as data" in text for text in sets.notices)
    assert [path.parent.name for path in listed(root)] == ["cat", "dog"]


def test_clips(run, tmp_path):
    root = tmp_path / "data"
    for number in range(4):
        clip(root / ("left" if number % 2 else "right") / f"{number}.gif", seed=number)
    sets = read_clip_folder(root, num_frames=4)
    assert sets.train.classes == ("left", "right")
    assert len({*sets.train.names, *sets.test.names}) == 4
    assert sets.notices[0] == f"1 folder of a run is not read as data: {run}"
    assert listed_clips(run, set()) == []


def test_texts_to_predict(run, tmp_path):
    (tmp_path / "data" / "a.txt").write_text("one")
    found, _, notices = read_texts([tmp_path / "data", tmp_path / "data" / "a.txt"])
    assert [text for _, text in found] == ["one", "one"]
    assert notices == (f"1 folder of a run is not read as data: {run}",)


@pytest.mark.parametrize("read", [find_texts, read_labelled_texts, read_image_sets])
def test_a_run_named_as_data_is_refused(run, read):
    with pytest.raises(UsageError, match="Data must not come from a run's folder"):
        read(run)
    with pytest.raises(UsageError, match="Data must not come from a run's folder"):
        read_clip_folder(run, num_frames=4)


class TestLinks:
    def test_each_folder_is_visited_once(self, tmp_path):
        root = tmp_path / "data"
        for name in ("a", "b"):
            (root / name).mkdir(parents=True)
            (root / name / "1.txt").write_text(name)
            (root / name / "up").symlink_to("..")
        (root / "x").symlink_to(".")
        (root / "y").symlink_to("b")
        found = [(str(parent.relative_to(root)), names) for parent, names in walk(root, set())]
        assert found == [(".", []), ("a", ["1.txt"]), ("b", ["1.txt"])]
        # Nor does a link lead a walk out of its folder to what lies beside it.
        assert list(walk(root / "a", set())) == [(root / "a", ["1.txt"])]
        assert subfolders(root, set()) == [root / "a", root / "b", root / "y"]

    def test_a_folder_that_cannot_be_listed_is_not_passed_over(self, tmp_path, monkeypatch):
        (tmp_path / "a").mkdir()

        def refuse(path):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("volano.data.sources.folders.os.scandir", refuse)
        with pytest.raises(DataError, match="A folder of data must be readable; got .*Permission"):
            list(walk(tmp_path, set()))

    def test_a_folder_elsewhere_is_read_through_its_link(self, tmp_path):
        (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
        (tmp_path / "elsewhere" / "deep" / "1.txt").write_text("one")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
        source = find_texts(tmp_path / "data")
        assert [document.name for document in source.read()] == ["link/deep/1.txt"]

    def test_pipes_and_sockets_are_no_files_and_a_broken_link_says_so_itself(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.txt")
        (tmp_path / "link.txt").symlink_to("pipe.txt")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(tmp_path / "socket.txt"))
            (tmp_path / "gone.txt").symlink_to("nowhere")
            (tmp_path / "self.txt").symlink_to("self.txt")
            (tmp_path / "a.txt").write_text("one")
            assert list(walk(tmp_path, set())) == [(tmp_path, ["a.txt", "gone.txt", "self.txt"])]
        for read in (find_texts, read_labelled_texts, read_image_sets):
            with pytest.raises(UsageError, match="in a folder or in a regular file; got .*neither"):
                read(tmp_path / "pipe.txt")


class TestFilesToPredict:
    def found(self, *given):
        return files_to_predict(given, listed, is_image, what="images", one="an image (.png)")

    def test_files_and_folders(self, run, tmp_path):
        (tmp_path / "more").mkdir()
        for name in ("b.png", "a.jpg", "more/c.png", "more/notes.txt"):
            (tmp_path / name).write_text("x")
        shutil.move(run, tmp_path / "more" / "run")
        files, notices = self.found(tmp_path / "b.png", str(tmp_path / "more"))
        assert [path.name for path in files] == ["b.png", "c.png"]
        assert notices == (f"1 folder of a run is not read as data: {tmp_path / 'more' / 'run'}",)

    def test_what_names_none_is_refused(self, tmp_path):
        (tmp_path / "notes.txt").write_text("x")
        (tmp_path / "empty").mkdir()
        with pytest.raises(UsageError, match="A file to predict must exist"):
            self.found(tmp_path / "none.png")
        with pytest.raises(UsageError, match=r"named like an image \(.png\)"):
            self.found(tmp_path / "notes.txt")
        with pytest.raises(DataError, match="There must be images to predict; got none in .*empty"):
            self.found(tmp_path / "empty")


def test_what_a_table_may_name(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.png").touch()
    (tmp_path / "c\\d.png").touch()
    os.mkfifo(tmp_path / "pipe")
    expected = {
        "a%2Fb.png": tmp_path / "a" / "b.png",
        f"file://{tmp_path}/a/b.png": tmp_path / "a" / "b.png",
        "a/b.png": tmp_path / "a" / "b.png",
        "a\\b.png": tmp_path / "a" / "b.png",
        "c\\d.png": tmp_path / "c\\d.png",
        str(tmp_path / "x"): tmp_path / "x",
        chr(0xD800): "a name that no file can have",
        "pipe": NO_FILE,
        "x" * 5000: tmp_path / ("x" * 5000),
    }
    assert {name: file_named(name, tmp_path) for name in expected} == expected
    assert not is_there(tmp_path / ("x" * 5000))
