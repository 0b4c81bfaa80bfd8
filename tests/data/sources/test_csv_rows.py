"""CSV as people write it; a row that cannot be read loses none behind it."""

import pytest

from volano.data.sources.tables import read_rows


def read(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    faults = []
    rows = list(read_rows(path, on_fault=lambda place, reason: faults.append((place, reason))))
    return rows, [(int(place.rsplit(":", 1)[1]), reason) for place, reason in faults]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_and_encodings(tmp_path, encoding, separator):
    text = " Label ,TEXT\nx,one\n\ny,\u00e9t\u00e9\n".replace(",", separator)
    rows, faults = read(tmp_path / "t.csv", text, encoding)
    assert rows == [
        (2, {"Label": "x", "TEXT": "one"}),
        (4, {"Label": "y", "TEXT": "\u00e9t\u00e9"}),
    ]
    assert faults == []


def test_unquoted_commas_are_faults(tmp_path):
    rows, faults = read(tmp_path / "t.csv", "label,text\nx,well, this\nx,fine\ny\ny,also,\n")
    assert [number for number, _ in rows] == [3, 5]
    assert [number for number, _ in faults] == [2, 4]
    assert "3 fields where the header has 2" in faults[0][1]


@pytest.mark.parametrize("at", [1, 50, 99])
@pytest.mark.parametrize("behind", ["", '"quoted, as it should be"', 'ends "so"'])
def test_a_quote_that_is_not_closed_loses_one_row(tmp_path, at, behind):
    lines = [f"{'ab'[n % 2]},this is text {n}" for n in range(1, 101)]
    lines[at - 1] = f'a,"this is text {at}'
    lines[99] = f"b,{behind or 'the last'}"
    rows, faults = read(tmp_path / "t.csv", "\n".join(["label,text", *lines]))
    assert [number for number, _ in faults] == [at + 1]
    assert len(rows) == 99


def test_a_quote_that_closes_far_behind_is_seen(tmp_path):
    lines = [f"{'ab'[n % 2]},this is text {n}" for n in range(1, 101)]
    lines[20], lines[80] = 'a,"opened', 'a,closed"'
    rows, faults = read(tmp_path / "t.csv", "\n".join(["label,text", *lines]))
    assert [number for number, _ in faults] == [22]
    assert len(rows) == 99


def test_fields_of_several_lines_are_read(tmp_path):
    rows, faults = read(tmp_path / "t.csv", 'label,text\nx,"one\ntwo ""2"""\ny,three\n')
    assert [(number, row["text"]) for number, row in rows] == [(2, 'one\ntwo "2"'), (4, "three")]
    assert faults == []


@pytest.mark.parametrize("before", ["\n \n", "sep=;\n", '"sep=;"\n', "\nSEP=;,\n"])
def test_lines_before_the_header(tmp_path, before):
    rows, faults = read(tmp_path / "t.csv", f"{before}label;text\nx;one\n")
    assert rows == [(before.count("\n") + 2, {"label": "x", "text": "one"})]
    assert faults == []


def test_zero_bytes_at_the_end_are_a_fault_of_one_line(tmp_path):
    rows, faults = read(tmp_path / "t.csv", "label,text\nx,one\ny,two\n\0\0\0\n")
    assert [row["text"] for _, row in rows] == ["one", "two"]
    assert [number for number, _ in faults] == [4]


def test_of_two_columns_of_one_name_the_first_is_read_and_that_is_said(tmp_path):
    rows, faults = read(tmp_path / "t.csv", "label,note,LABEL,note,text\nx,1,y,2,one\n")
    assert rows == [(2, {"label": "x", "note": "1", "LABEL": "y", "text": "one"})]
    assert faults == [(1, "all columns named label but the first")]
