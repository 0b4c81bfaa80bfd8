"""The description of a language model."""

import pytest

from volano.apps.text.model_spec import TextSpec
from volano.errors import CheckpointError

SPEC = TextSpec(
    vocab_size=300, context=32, depth=2, tokenizer_digest="0", num_train_bytes=900,
    num_train_tokens=300, num_held_bytes=90, num_held_tokens=30, baselines={"xz": 2.0},
    origin="two books",
)  # fmt: skip


def test_it_comes_back():
    assert TextSpec.from_json(SPEC.to_json()) == SPEC
    shape = SPEC.shape(dropout=0.1)
    assert (shape.vocab_size, shape.context, shape.depth, shape.dropout) == (300, 32, 2, 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 9}, "schema version 1; got 9"),
        ({"goal": "classes"}, "must describe a language model; got classes"),
        ({"width": 3}, "must describe a language model; got .*width"),
    ],
)
def test_another_is_refused(change, message):
    with pytest.raises(CheckpointError, match=message):
        TextSpec.from_json({**SPEC.to_json(), **change})


@pytest.mark.parametrize("bits", [[1], None, "x"])
def test_figures_that_are_none_are_refused(bits):
    with pytest.raises(CheckpointError, match=r"text\.json must describe"):
        TextSpec.from_json({**SPEC.to_json(), "baselines": {"bz2": bits}})
