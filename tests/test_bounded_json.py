"""JSON whose depth is known before memory is taken."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volano.bounded_json import parse_json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=100,
)


@given(values)
def test_what_json_holds_comes_back(value):
    text = json.dumps(value)
    assert parse_json(text) == parse_json(text.encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False)) == value


@pytest.mark.parametrize(("text", "is_deep"), [
    ("[" * 64 + "]" * 64, False),
    ("[" * 65 + "]" * 65, True),
    ('{"a":' * 65 + "1" + "}" * 65, True),
    ("[" * 1_000_000, True),
    ('["' + "[" * 100 + '"]', False),  # a text
    ('["' + chr(92) + '"' + "[" * 100 + '"]', False),  # with a quote in it
    ('["' + chr(92) * 2 + '"' + ", [" * 70 + "]" * 71, True),  # that ends before
    ("[" + "[]," * 100 + "[]]", False),
])  # fmt: skip
def test_depth_is_bounded(text, is_deep):
    if is_deep:
        with pytest.raises(ValueError, match="nested deeper than 64 levels"):
            parse_json(text)
    else:
        assert isinstance(parse_json(text), list)


def test_texts_that_are_not_closed_end_at_once():
    for text in ('["' + "[" * 100 + (chr(92) + '"') * 200_000, '["' * 200_000):
        with pytest.raises(ValueError):
            parse_json(text)
