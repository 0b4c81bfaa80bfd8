"""What columns of tables hold: classes, labels or numbers; and what they cannot."""

from pathlib import Path

import numpy as np
import pytest

from volano.data.sources.tables import LABEL_COLUMNS, find_column
from volano.data.sources.targets import (
    CLASSES,
    LABELS,
    NUMBERS,
    TargetFormat,
    check_trained,
    read_targets,
    target_texts,
)
from volano.errors import DataError, UsageError

TABLE = Path("t.csv")
FLOATS = [str(number / 7) for number in range(22)]


def read(wanted=None, names=None, *, leaves_out_unknown=False, asked=(), **columns):
    rows = len(next(iter(columns.values())))
    form = TargetFormat(
        kind=wanted, columns=tuple(asked), names=names, leaves_out_unknown=leaves_out_unknown
    )
    return read_targets(columns, range(2, 2 + rows), TABLE, form)


@pytest.mark.parametrize(
    ("cells", "kind", "said"),
    [
        (["cat", "dog"], CLASSES, ""),
        (["a;b", "b", "a"], LABELS, "several labels with ';' between them, such as 'a;b'"),
        (["a|b", "b|c"], LABELS, "with '|'"),
        (["a, b", "b", "a"], LABELS, "with ','"),
        (["Paris, France", "Lyon, France"], CLASSES, ""),
        (["Salt; pepper", "Sugar"], CLASSES, ""),
        ([["a", "b"], ["a"]], LABELS, "lists"),
        (["['a', 'b']", "a"], LABELS, "lists"),
        ([["a"], ["b"]], CLASSES, ""),
        (["1", "2", "1"], CLASSES, ""),
        (FLOATS, NUMBERS, "22 different numbers, some of them once"),
        (FLOATS * 2, CLASSES, "22 different numbers: each is a class of its own"),
        ([*FLOATS, "x"], CLASSES, ""),
    ],
)
def test_the_kind_is_found_where_it_is_plain(cells, kind, said):
    found = read(label=cells)
    assert found.kind == kind
    assert said in " ".join(found.notices)
    assert bool(said) == bool(found.notices)


def test_several_columns_are_labels_or_numbers():
    assert read(cat=[1, 0], dog=[0, "1"], asked=("cat", "dog")).kind == LABELS
    assert read(left=[1, 0], right=[0, 2.5], asked=("left", "right")).kind == NUMBERS
    assert read(first=["a", ""], second=["b", "a"], asked=("first", "second")).names == ("a", "b")
    with pytest.raises(UsageError, match="classes must come with one column; got a, b"):
        read(CLASSES, a=["x"], b=["y"])


@pytest.mark.parametrize(
    "columns",
    [
        {"label": ["b;a", "", "b"]},
        {"label": [["b", "a"], [], None]},
        {"label": ["b, a", float("nan"), "b "]},
        {"a": ["yes", "no", "no"], "b": [True, False, True]},
    ],
)
def test_labels(columns):
    found = read(LABELS, asked=columns if len(columns) > 1 else (), **columns)
    assert found.names == ("a", "b")
    assert found.values.tolist()[:2] == [[1, 1], [0, 0]]
    assert found.values.dtype == np.uint8
    assert target_texts(LABELS, found.names, found.values)[:2] == ["a;b", ""]


def test_one_column_of_answers_is_one_label():
    found = read(LABELS, asked=("is_cat",), is_cat=["1", "0", "", "yes"])
    assert (found.names, found.values.tolist()) == (("is_cat",), [[1], [0], [0], [1]])


def test_numbers_that_are_labels_stand_in_their_order():
    assert read(label=["10;9", "9", "10;2"]).names == ("2", "9", "10")


def test_labels_of_a_run():
    found = read(LABELS, ("b", "a"), leaves_out_unknown=True, label=["a;x", "b"])
    assert found.values.tolist() == [[0, 1], [1, 0]]
    assert found.notices == ("labels that the run does not know are left out: x",)
    with pytest.raises(DataError, match=r"must have the run's labels; got also x in t.csv"):
        read(LABELS, ("b", "a"), label=["a;x", "b"])


def test_labels_must_differ_and_be_decoded():
    with pytest.raises(DataError, match="must differ in their labels; got a in every row"):
        read(LABELS, label=["a", "a"])
    with pytest.raises(DataError, match="must differ in their labels; got no label in every row"):
        read(LABELS, label=["", ""])
    with pytest.raises(DataError, match="UTF-8"):
        read(LABELS, label=["a;\ufffd", "a"])


def test_numbers():
    found = read(NUMBERS, price=["1.5", " 2e1", 3, True, ".5"], left=[1, 2, 3, 4, -5])
    assert found.names == ("price", "left")
    assert found.values.tolist() == [[1.5, 1], [20, 2], [3, 3], [1, 4], [0.5, -5]]
    assert target_texts(NUMBERS, found.names, found.values)[0] == "1.5, 1"


@pytest.mark.parametrize("cell", ["", "nan", None, float("nan"), float("inf"), "1,234", "many"])
def test_what_is_no_number_is_refused(cell):
    with pytest.raises(DataError, match=r"finite number to predict; got 1 without, the first in l"):
        read(NUMBERS, price=[1.0, cell, 2.0])


def test_separators_of_thousands_are_seen_and_refused():
    cells = [f"{number},234" for number in range(1, 30)]
    with pytest.raises(DataError, match=r"holds '1,234'\. .*without separators of thousands"):
        read(price=cells)


def test_numbers_must_differ():
    with pytest.raises(DataError, match=r"must differ; got only 3 in column price of t\.csv"):
        read(NUMBERS, price=["3", "3.0"])
    assert read(NUMBERS, ("price",), price=["3", "3.0"]).values.tolist() == [[3], [3]]


def test_a_folder_has_no_columns():
    TargetFormat(kind=CLASSES).check_no_table("a folder")
    with pytest.raises(UsageError, match="`target` must come with a table.*got labels with a fold"):
        TargetFormat(kind=LABELS).check_no_table("a folder")
    with pytest.raises(UsageError, match="`target_columns` must come with a table"):
        TargetFormat(columns=("x",)).check_no_table("a folder")


def test_the_option_that_names_columns_is_advised_where_it_was_not_given():
    with pytest.raises(DataError, match="Rename the column, or name it by `target_columns`"):
        TargetFormat().columns_of({"x": 1}, TABLE)
    with pytest.raises(DataError, match=r"Rename the column\.$"):
        TargetFormat(columns=("y",)).columns_of({"x": 1}, TABLE)
    with pytest.raises(DataError, match=r"Rename the column\.$"):  # as of texts and of clips
        find_column({"x": 1}, LABEL_COLUMNS, TABLE, "labels")


def test_what_is_only_tested_is_refused():
    check_trained(NUMBERS, ("x",), np.zeros((2, 1)), "texts")
    check_trained(LABELS, ("a", "b"), np.array([[1, 0], [0, 1]]), "texts")
    with pytest.raises(DataError, match="Every label must have readable texts.*none of b"):
        check_trained(LABELS, ("a", "b"), np.array([[1, 0], [0, 0]]), "texts")
    with pytest.raises(DataError, match="Every class must have readable images.*none of b"):
        check_trained(CLASSES, ("a", "b"), np.array([0, 0]), "images")


def test_answers_written_as_floats_are_answers_and_blanks_are_said():
    found = read(cat=[1.0, 0.0, float("nan")], dog=["0.0", "1.0", "1"], asked=("cat", "dog"))
    assert (found.kind, found.names) == (LABELS, ("cat", "dog"))
    assert found.values.tolist() == [[1, 0], [0, 1], [0, 1]]
    assert "1 blank cells of cat, dog count as no" in found.notices


def test_a_cell_that_is_a_label_of_the_run_is_not_parted():
    found = read(LABELS, names=("Paris, France", "beach"), label=["Paris, France", "beach"])
    assert found.values.tolist() == [[1, 0], [0, 1]]


def test_columns_of_classes_do_not_keep_a_run_from_folders():
    TargetFormat(kind=CLASSES, columns=("kind",), names=("a", "b")).check_no_table("a folder")
    with pytest.raises(UsageError, match="must come with a table"):
        TargetFormat(kind=CLASSES, columns=("kind",)).check_no_table("a folder")


def test_numbers_with_a_decimal_comma_are_told_how_to_be_written():
    with pytest.raises(DataError, match=r"column label holds '0,0'.*as 1234\.5, with a point"):
        read(label=[one.replace(".", ",") for one in FLOATS])
