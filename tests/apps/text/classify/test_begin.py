"""The encoder with which a classifier of texts begins."""

import pytest
import torch

from volano.apps.text.classify.begin import encoder_of
from volano.errors import UsageError


def test_a_run_is_a_network_to_begin_with(encoder_run, tmp_path):
    own = encoder_of(str(encoder_run.path))
    assert own is not None
    texts = own.tokenizer.encode(["a good day", "bad"]).padded([0, 1])
    with torch.no_grad():
        assert torch.equal(own.trunk(*texts), encoder_run.model.trunk(*texts))
    assert all(parameter.requires_grad for parameter in own.trunk.parameters())
    (tmp_path / "run.json").write_text('{"schema_version": 1, "source": {"kind": "image"}}')
    with pytest.raises(UsageError, match="must be a classifier of texts on a pretrained encoder"):
        encoder_of(str(tmp_path))


def test_an_encoder_is_one_of_transformers_or_a_runs():
    assert encoder_of(None) is None
    with pytest.raises(UsageError, match="must be one of transformers"):
        encoder_of("timm:resnet18")
