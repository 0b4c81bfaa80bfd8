"""Texts with labels: tables and class folders, and how they are split."""

from pathlib import Path

import pytest

from volano.apps.text.classify.application import ClassifyApplication
from volano.apps.text.classify.options import ClassifyOptions
from volano.data.sources import read_labelled_texts, read_texts
from volano.errors import DataError, UsageError


def read_classes(path):
    return ClassifyApplication.read(ClassifyOptions(path=path))


def write_table(path, num=120):
    lines = ["label,text"]
    for number in range(num):
        name, word = (("fruit", "apple"), ("tool", "hammer"), ("animal", "horse"))[number % 3]
        lines.append(f'{name},"number {number}: a {word} and {word} number {number * 7 % 11}"')
    path.write_text("\n".join(lines))
    return path


class TestSources:
    def test_a_table(self, tmp_path):
        sets = read_labelled_texts(write_table(tmp_path / "t.csv"))
        assert sets.train.classes == ("animal", "fruit", "tool")
        assert len(sets.train) == 120
        assert sets.test is None

    def test_a_column_of_splits(self, tmp_path):
        rows = ["text,label,split", "a b,x,train", "c d,y,train", "e f,x,test", ",y,train"]
        (tmp_path / "t.csv").write_text("\n".join(rows))
        sets = read_labelled_texts(tmp_path / "t.csv")
        assert sets.test is not None
        assert sets.test.texts == ("e f",)
        assert [fault.reason for fault in sets.faults] == ["without text"]

    def test_splits_ignore_case_and_blanks(self, tmp_path):
        rows = ["text,label, Split ", "a,x,Train", "b,y, train ", "c,x,TEST ", "d,y,", "e,y,Dev"]
        (tmp_path / "t.csv").write_text("\n".join(rows))
        sets = read_labelled_texts(tmp_path / "t.csv")
        assert sets.train.texts == ("a", "b", "d")
        assert sets.test is not None
        assert sets.test.texts == ("c",)
        assert sets.valid is not None
        assert sets.valid.texts == ("e",)

    def test_an_unknown_split_is_refused(self, tmp_path):
        (tmp_path / "t.csv").write_text("text,label,split\na,x,train\nb,y,holdout\n")
        with pytest.raises(
            DataError,
            match=r"split must be train, val or test; got 'holdout' in .*t\.csv:3.* Rename it",
        ):
            read_labelled_texts(tmp_path / "t.csv")

    def test_a_class_that_is_only_tested_is_refused(self, tmp_path):
        (tmp_path / "t.csv").write_text("text,label,split\na,x,train\nb,y,train\nc,z,test\n")
        with pytest.raises(
            DataError,
            match=r"Every class must have texts to train on; got only in the test set of .*: z",
        ):
            read_labelled_texts(tmp_path / "t.csv")

    def test_beside_a_test_set_val_is_chosen_by(self, tmp_path):
        rows = [f"word {n},{'xy'[n % 2]},{('train', 'val', 'test')[n % 3]}" for n in range(30)]
        (tmp_path / "t.csv").write_text("\n".join(["text,label,split", *rows]))
        application = read_classes(tmp_path / "t.csv")
        assert application.test.texts == tuple(f"word {n}" for n in range(2, 30, 3))
        assert [application.train.texts[row] for row in application.choice] == [
            f"word {n}" for n in range(1, 30, 3)
        ]
        assert [application.train.texts[row] for row in application.fit_rows] == [
            f"word {n}" for n in range(0, 30, 3)
        ]
        assert application.notices[0].startswith("texts: 10 to train on and 10 to evaluate on")
        assert application.notices[1:] == (
            "the 10 texts of split val are held back to choose, and trained on after that",
        )
        assert not application.is_held_out

    def test_what_lies_beside_the_classes_is_said(self, tmp_path):
        for place in ("train/a/1", "train/b/1", "test/a/1", "train/loose", "extra/x", "readme"):
            path = tmp_path / f"{place}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"text of {place}")
        assert read_labelled_texts(tmp_path).notices == (
            "texts are read from test/ and train/; left out: 1 in extra/, 1 in no folder",
            "left out: 1 text next to the class folders of train/",
        )

    def test_val_is_tested_where_there_is_no_test_set(self, tmp_path):
        (tmp_path / "t.csv").write_text("text,label,split\na,x,train\nb,y,train\nc,x,val\n")
        application = read_classes(tmp_path / "t.csv")
        assert application.test.texts == ("c",)
        assert application.notices == (
            "texts: 2 to train on and 1 to test on, of 2 classes: x 1 + 1, y 1 + 0",
        )

    def test_texts_in_folders_keep_their_folders(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "a.txt").write_text(name)
        (tmp_path / "one" / "one").write_text("no text by its name")
        (tmp_path / "a.txt").write_text("loose")
        (tmp_path / "t.csv").write_text("text\nrow\n")
        found, _, _ = read_texts([Path("one"), tmp_path / "two", Path("a.txt"), Path("t.csv")])
        assert found == [
            ("one/a.txt", "one"), (str(tmp_path / "two" / "a.txt"), "two"), ("a.txt", "loose"),
            ("t.csv:2", "row")
        ]  # fmt: skip

    def test_class_folders_with_and_without_splits(self, tmp_path):
        for part in ("train", "test"):
            for name in ("x", "y"):
                folder = tmp_path / "split" / part / name
                folder.mkdir(parents=True)
                (folder / "1.txt").write_text(f"{part} {name}")
        sets = read_labelled_texts(tmp_path / "split")
        assert sets.test is not None
        assert (sets.train.texts, sets.test.texts) == (("train x", "train y"), ("test x", "test y"))
        plain = read_labelled_texts(tmp_path / "split" / "train")
        assert (plain.train.classes, plain.test) == (("x", "y"), None)

    def test_what_cannot_be_meant(self, tmp_path):
        with pytest.raises(UsageError, match="must exist"):
            read_labelled_texts(tmp_path / "nowhere")
        (tmp_path / "a.txt").write_text("x")
        with pytest.raises(UsageError, match="table or a folder of class folders"):
            read_labelled_texts(tmp_path / "a.txt")
        (tmp_path / "one.csv").write_text("label,text\nx,one\nx,two")
        with pytest.raises(
            DataError, match=r"at least 2 classes; got 2 labelled texts of 1 classes \(x\)"
        ):
            read_labelled_texts(tmp_path / "one.csv")
        (tmp_path / "none.csv").write_text("words,text\nx,one")
        with pytest.raises(DataError, match="column of labels"):
            read_labelled_texts(tmp_path / "none.csv")
        with pytest.raises(DataError, match="have the run's classes; got also x"):
            read_labelled_texts(tmp_path / "one.csv", classes=("y", "z"), least_classes=1)
