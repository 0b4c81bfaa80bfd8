"""JSON that anybody may have written raises nothing."""

import pytest

from volano.record.json_values import (
    mapping,
    number,
    numbers,
    parse_line,
    read_lines,
    read_object,
    sequence,
)


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), True, float("inf"), float("nan"), "1", None, [1]]
)
def test_what_is_no_finite_number_is_none(value):
    assert number(value) is None
    assert numbers([value, 2]) == [2.0]


def test_other_types_are_empty():
    assert (mapping([1]), mapping(None), sequence({"a": 1}), numbers("12")) == ({}, {}, [], [])
    assert (mapping({"a": 1}), sequence([1])) == ({"a": 1}, [1])


@pytest.mark.parametrize("line", ["[" * 100_000, b"\xff", "3", "[]", "{", "", '{"a": 1} 2'])
def test_a_line_that_is_no_object_is_none(line):
    assert parse_line(line) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "f.json is not there"),
        (b"[1]", "f.json holds no JSON object"),
        (b"{", "f.json cannot be read: Expecting property name"),
        (b"\xff", "f.json cannot be read: 'utf-8' codec"),
        (b"[" * 100_000, "f.json cannot be read: "),
    ],
)
def test_an_object_that_cannot_be_read_is_empty_and_said(tmp_path, content, why):
    if content is not None:
        (tmp_path / "f.json").write_bytes(content)
    missing = []
    assert read_object(tmp_path / "f.json", missing) == {}
    assert missing[0].startswith(why)


def test_lines_that_are_not_expected_may_be_missing(tmp_path):
    missing = []
    assert read_lines(tmp_path / "f.jsonl", missing, is_expected=False) == ()
    assert missing == []
    assert read_lines(tmp_path / "f.jsonl", missing, is_expected=True) == ()
    assert missing == ["f.jsonl is not there"]
    (tmp_path / "f.jsonl").write_bytes(b'{"a": 1}\n\n\xff\n{"b')
    assert read_lines(tmp_path / "f.jsonl", missing, is_expected=True) == ({"a": 1},)
    assert missing[1] == "f.jsonl: 2 of 3 lines are damaged and left out"
