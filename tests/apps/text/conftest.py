"""A small text that tests of several modules look at."""

import argparse
from pathlib import Path

import pytest

from volano.apps.text.application import TextApplication
from volano.apps.text.options import TextOptions


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
