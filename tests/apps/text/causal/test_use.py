"""What a language model of transformers refuses; what it does stands in test_application.py."""

import pytest

from volano.apps.text.causal.use import CausalModel
from volano.errors import UsageError


def test_only_one_format():
    model = object.__new__(CausalModel)
    with pytest.raises(UsageError, match="must be exported to hf"):
        model.export("onnx")
    said = model.describe_evaluation(
        {"bits_per_byte": 1.5, "num_bytes": 2000, "origin": "a book", "perplexity": 9.0}
    )
    assert said == ["bits per byte 1.5000 on 2,000 bytes of a book; perplexity 9.0 a token"]
