"""Texts in tables: lines of JSON, CSV and Parquet."""

import json

import pytest

from data.sources.text.test_texts import texts_of
from volano.data.sources import find_texts
from volano.errors import DataError, MissingExtraError


def test_json_lines(tmp_path):
    rows = [
        '{"text": "one"}',
        "",
        "{broken",
        '"text"',
        '{"text": 7}',
        '{"text": null}',
        '{"text": "two\\n"}',
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    faults = []
    assert texts_of(find_texts(tmp_path / "rows.jsonl"), faults) == ["one", "two\n"]
    assert [fault.reason.split(":")[0] for fault in faults] == [
        "not JSON", "a JSON str, not an object", "text is int, not text"
    ]  # fmt: skip
    assert faults[0].path.endswith("rows.jsonl:3")


def test_half_a_character_in_json_is_replaced_and_listed(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a\\ud800b"}')
    faults = []
    assert texts_of(find_texts(tmp_path / "rows.jsonl"), faults) == ["a?b"]
    assert "half a character" in faults[0].reason


def test_csv_with_long_fields(tmp_path):
    (tmp_path / "rows.csv").write_text('id,Content\n1,"' + "long, " * 50_000 + '"\n2,short\n')
    assert [len(text) for text in texts_of(find_texts(tmp_path / "rows.csv"))] == [300_000, 5]


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    table = pyarrow.Table.from_pylist([{"n": n, "text": f"row {n}"} for n in range(3)])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    assert texts_of(find_texts(tmp_path)) == ["row 0", "row 1", "row 2"]
    (tmp_path / "rows.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"\.parquet file must be a Parquet table"):
        texts_of(find_texts(tmp_path / "rows.parquet"))


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "rows.parquet").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"volano\[data\]"):
        texts_of(find_texts(tmp_path / "rows.parquet"))


def test_tables_in_a_folder_that_cannot_be_read_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.csv").write_text("id,words\n1,x\n")
    (tmp_path / "b.parquet").write_bytes(b"no table")
    (tmp_path / "c.jsonl").write_text('{"text": "one"}\n{"words": "x"}\n')
    (tmp_path / "d.txt").write_text("two")
    faults = []
    assert texts_of(find_texts(tmp_path), faults) == ["one", "two"]
    assert [fault.path.rsplit("/", 1)[-1] for fault in faults] == [
        "a.csv", "b.parquet", "c.jsonl:2"
    ]  # fmt: skip
    assert [fault.reason.split(";")[0].split(",")[0] for fault in faults] == [
        "A table must have a column of text",
        "Parquet files are read with pyarrow",
        "A table must have a column of text",
    ]


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_undecodable_bytes_in_tables_are_listed(tmp_path, name):
    rows = {
        "rows.csv": b"text\nplain\nna\xefve\n\xef\xbf\xbd meant\n",
        "rows.jsonl": b'{"text": "plain"}\n{"text": "na\xefve"}\n{"text": "\xef\xbf\xbd meant"}\n',
    }
    (tmp_path / name).write_bytes(rows[name])
    faults = []
    assert texts_of(find_texts(tmp_path / name), faults) == ["plain", "na\ufffdve", "\ufffd meant"]
    assert [(fault.path, fault.reason) for fault in faults] == [
        (
            f"{tmp_path / name}:{3 if name == 'rows.csv' else 2}",
            "1 undecodable places were read as U+FFFD",
        )
    ]


def test_a_table_without_text(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"label": 1, "words": "x"}))
    with pytest.raises(DataError, match=r"column of text, named text.*; got .* with label, words"):
        texts_of(find_texts(tmp_path / "rows.jsonl"))
