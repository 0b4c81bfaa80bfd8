"""A small text that tests of several modules look at."""

import argparse
import sysconfig
from pathlib import Path

import pytest
import torch

from volano.apps.text.application import TextApplication
from volano.apps.text.network import Decoder, DecoderShape
from volano.apps.text.options import TextOptions
from volano.apps.text.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def read_text(tmp_path_factory):
    """``read_text(scratch, **options)``: an application on 20 KB of the standard library."""
    path = tmp_path_factory.mktemp("texts") / "argparse.txt"
    path.write_text(Path(argparse.__file__).read_text(encoding="utf-8")[:20_000], encoding="utf-8")

    def read(scratch, **options):
        return TextApplication.read(TextOptions(**{"path": str(path), **options}), scratch)

    return read


@pytest.fixture(scope="session")
def small_text(read_text, tmp_path_factory):
    """That application, with a context of 32 tokens."""
    return read_text(tmp_path_factory.mktemp("scratch"), context=32)


@pytest.fixture(scope="session")
def tokenizer():
    """A tokenizer of 512 tokens, trained on a module of the standard library."""
    path = Path(sysconfig.get_paths()["stdlib"]) / "argparse.py"
    return train_tokenizer([path.read_text(encoding="utf-8")], 512)


@pytest.fixture(scope="module")
def model():
    """A small decoder of its tokens, whose weights are all drawn."""
    torch.manual_seed(0)
    model = Decoder(DecoderShape(vocab_size=512, context=32, depth=2))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model
