"""Tables of clips with their labels."""

import os

import pytest

from volano.data.sources.video.clip_tables import clips_of_table, is_table
from volano.errors import DataError


def table(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    return tmp_path / "t.csv"


def test_files_are_seen_from_the_table(tmp_path):
    found = clips_of_table(table(tmp_path, "Clip,label\na/1.mp4,walk\n2.mp4,run\n"))
    assert found.classes == ("run", "walk")
    assert found.root == tmp_path
    assert [(file.path, file.label, file.is_test) for file in found.files] == [
        (tmp_path / "a" / "1.mp4", 1, False),
        (tmp_path / "2.mp4", 0, False),
    ]
    assert is_table(tmp_path / "t.csv")
    assert not is_table(tmp_path)


def test_splits_are_those_of_the_table(tmp_path):
    rows = "path,label,split\n1.mp4,a,train\n2.mp4,a,{}\n3.mp4,a,val\n"
    found = clips_of_table(table(tmp_path, rows.format("test")))
    assert [file.is_test for file in found.files] == [False, True]
    assert found.notices == ("left out: 1 clips of split val",)
    found = clips_of_table(table(tmp_path, rows.format("val")))
    assert [file.is_test for file in found.files] == [False, True, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clip,label\n", "must have rows"),
        ("movie,label\n1.mp4,a\n", "a column of clips, named clip, video, path"),
        ("clip,kind\n1.mp4,a\n", "a column of labels"),
        ("clip,label\n,a\n", "must name a file"),
        ("clip,label\n1.mp4,\n", "must have a label"),
        ("clip,label,split\n1.mp4,a,train\n2.mp4,b,test\n", "clips to train on; got none of b"),
    ],
)
def test_what_is_missing_is_told(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        clips_of_table(table(tmp_path, text))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "t.csv").write_text("clip,label\npipe.mp4,a\none.mp4,a\ntwo.mp4,b\n")
    found = clips_of_table(tmp_path / "t.csv")
    assert [file.path.name for file in found.files] == ["one.mp4", "two.mp4"]
    assert any("a pipe" in notice for notice in found.notices)


def test_labels_are_read_by_a_runs_classes(tmp_path):
    (tmp_path / "t.csv").write_text("clip,label,split\na.mp4,1.0,val\nb.mp4,0.0,val\n")
    found = clips_of_table(tmp_path / "t.csv", ("False", "True"))
    assert found.classes == ("False", "True")
    assert [file.is_test for file in found.files] == [True, True]
