"""Labels and splits of tables, for pictures as for texts."""

import functools
import itertools
from pathlib import Path

import pytest

from volano.data.sources.tables import (
    check_has_train,
    find_column,
    labels_of,
    read_rows,
    split_named,
    split_of_row,
    with_columns,
)
from volano.errors import DataError

TABLE = Path("t.csv")


def labels(*cells, known=()):
    return labels_of(cells, range(2, 2 + len(cells)), TABLE, known)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("cat ", " cat", "dog"), ["cat", "cat", "dog"]),
        ((1, 1.0, True, "1", "1.0", 0), ["1", "1", "1", "1", "1", "0"]),
        ((True, "false", "TRUE"), ["True", "False", "True"]),
        (("01", "1"), ["01", "1"]),
        (("1.0", "cat"), ["1.0", "cat"]),
        ((["x"], ("y",)), ["x", "y"]),
        (("['x']", '[ "y" ]', "[z]"), ["x", "y", "[z]"]),
        (("+1", "1", "-0", "[1]"), ["1", "1", "0", "1"]),
        (("cafe\u0301", "caf\u00e9"), ["caf\u00e9"] * 2),
        ((b"cat", "\ufeffcat", "cat\u200b"), ["cat"] * 3),
    ],
)
def test_labels(cells, expected):
    assert labels(*cells) == (expected, ())


@pytest.mark.parametrize("cell", [None, float("nan"), "", "  ", "NaN", "nan", "null", []])
def test_no_label_is_refused(cell):
    with pytest.raises(DataError, match="must have a label; got 1 without, the first in line 3"):
        labels("x", cell, "y")


def test_several_labels_are_seen():
    for cell in (["x", "y"], "['x', 'y']"):
        with pytest.raises(DataError, match="must have one label; got 2 in t.csv:2"):
            labels(cell, "x")
    for text in ("cat|big cat|small", "cat,big cat,small"):
        assert "each combination is a class of its own" in labels(*text.split())[1][0]
    assert labels("cat|dog", "bird")[1] == ()


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (("0.0", "1.0"), ["1.0", "0.0", "1"]),
        (("0", "1"), ["1", "0", "1"]),
        (("True", "False"), ["True", "False", "True"]),
        (("cat",), ["1", "0", "1"]),
    ],
)
def test_labels_are_written_as_a_run_does(known, expected):
    assert labels("1.0", "0.0", "true", known=known)[0] == expected
    assert labels("True", known=("0", "1"))[0] == ["1"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_lines_of_json_have_any_encoding_that_a_shell_writes(tmp_path, encoding):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "caf\u00e9"}\n{"text": "b"}\n', encoding=encoding)
    faults = []
    rows = list(read_rows(path, on_fault=lambda *fault: faults.append(fault)))
    assert not faults
    assert rows == [(1, {"text": "caf\u00e9"}), (2, {"text": "b"})]


@pytest.mark.parametrize(
    ("row", "split"),
    [
        ({"Split ": " Test"}, "test"),
        ({"subset": "dev"}, "valid"),
        ({"is_valid": True}, "valid"),
        ({"is_valid": "False"}, "train"),
        ({"is_test": 1.0, "is_valid": "no"}, "test"),
        ({"is_test": None}, "train"),
        ({"split": None}, "train"),
        ({"split": float("nan"), "subset": " NaN", "is_test": "1"}, "test"),
        ({}, "train"),
    ],
)
def test_splits_of_rows(row, split):
    assert split_of_row(row, "here") == split


def test_an_answer_that_is_none_is_refused():
    with pytest.raises(DataError, match="is_valid must be yes or no .*got 'maybe' in here"):
        split_of_row({"is_valid": "Maybe"}, "here")


@pytest.mark.parametrize("cell", [{"a": 1}, [["a"]], "half \ud800"])
def test_what_is_no_label_is_refused(cell):
    with pytest.raises(DataError, match="must be (a text, a number|text in UTF-8)"):
        labels_of([cell, "b"], [2, 3], TABLE)


def test_usual_names_of_splits():
    assert [split_named(name) for name in ("Training_Set", "test-set", "dev", "cat")] == [
        "train", "test", "valid", None
    ]  # fmt: skip
    check_has_train(["train", "valid", "test"], TABLE)
    with pytest.raises(DataError, match="must have one to train on"):
        check_has_train(["valid", "test"], TABLE)


def test_a_line_of_json_may_be_nested_as_deep_as_it_likes(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n' + "[" * 10**5 + "\n" + '{"text": "b"}\n')
    faults = []
    rows = list(read_rows(tmp_path / "t.jsonl", on_fault=lambda *fault: faults.append(fault)))
    assert [number for number, _ in rows] == [1, 3]
    assert "nested deeper than 64" in faults[0][1]


def test_a_line_without_a_column_loses_no_other():
    rows = [(1, {"meta": 1}), (2, {"Label": "a"}), (3, {"label": "b"}), (4, {})]
    faults = []

    def find(row):
        return find_column(row, ("label",), TABLE, "labels")

    found = list(with_columns(rows, find, TABLE, lambda *fault: faults.append(fault)))
    assert found == [(2, {"Label": "a"}, "Label"), (3, {"label": "b"}, "label")]
    assert [place for place, _ in faults] == ["t.csv:1", "t.csv:4"]
    assert faults[0][1] == "A table must have a column of labels, named label"
    endless = ((number, {"meta": 1}) for number in itertools.count(1))
    with pytest.raises(DataError, match="column of labels, named label; got t.csv with meta"):
        list(with_columns(endless, find, TABLE, pytest.fail))


def test_only_known_columns_of_parquet_are_made_values_of_python(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    late = pyarrow.array([2**62], pyarrow.timestamp("ns"))  # no datetime of Python's holds it
    table = pyarrow.table({"taken": late, "Label": ["a"], "price": [2.5]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    read = functools.partial(read_rows, tmp_path / "t.parquet", on_fault=pytest.fail)
    assert list(read()) == [(1, {"Label": "a", "taken": None, "price": None})]
    assert next(read(names=("Price",)))[1]["price"] == 2.5
