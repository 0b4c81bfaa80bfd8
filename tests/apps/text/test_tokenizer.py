import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volano.apps.text.tokenizer import SEPARATOR, choose_vocab_size, load_tokenizer, train_tokenizer
from volano.data import open_tokens
from volano.errors import CheckpointError


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_byte_for_byte(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text.encode()
    assert tokenizer.num_bytes_of[ids].sum() == len(text.encode())


@pytest.mark.parametrize(
    "text", [f"a {SEPARATOR} b", "\r\n\t  x", "\0", "größer 東京 🙂", " " * 50]
)
def test_awkward_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert 0 not in ids  # the separator's letters are text
    assert tokenizer.decode(ids).decode() == text


def test_documents_have_a_separator_before_each(tokenizer):
    texts = ["one", "two " * 200_000, "three"]
    ids = np.concatenate(list(tokenizer.encode_documents(texts)))
    assert ids.dtype == np.uint16
    assert (ids == 0).sum() == 3
    starts = np.flatnonzero(ids == 0)
    assert [
        tokenizer.decode(part[1:].tolist()).decode() for part in np.split(ids, starts[1:])
    ] == texts


def test_merges_shorten(tokenizer):
    assert tokenizer.vocab_size == 512
    assert len(tokenizer.encode("self.add_argument(")) < 10


def test_the_vocabulary_grows_with_the_text():
    sizes = {
        5_000: 512,
        1_000_000: 1024,
        5_000_000: 2048,
        13_000_000: 4096,
        100_000_000: 8192,
        5_000_000_000: 32768,
    }
    assert {num_bytes: choose_vocab_size(num_bytes) for num_bytes in sizes} == sizes


class TestLoading:
    def test_the_same_tokenizer(self, tokenizer, tmp_path):
        (tmp_path / "tokenizer.json").write_bytes(tokenizer.to_bytes())
        loaded = load_tokenizer(tmp_path / "tokenizer.json", tokenizer.digest())
        text = f"def main(): {SEPARATOR}"
        assert loaded.encode(text) == tokenizer.encode(text)
        assert loaded.digest() == tokenizer.digest()

    def test_another_one_is_refused(self, tokenizer, tmp_path):
        (tmp_path / "tokenizer.json").write_bytes(
            train_tokenizer(["other text " * 50], 300).to_bytes()
        )
        with pytest.raises(
            CheckpointError, match="The tokenizer must belong to the run; got .* text.json says"
        ):
            load_tokenizer(tmp_path / "tokenizer.json", tokenizer.digest())

    @pytest.mark.parametrize("content", [None, "", "{}", "no JSON"])
    def test_missing_or_damaged(self, tmp_path, content):
        if content is not None:
            (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"tokenizer"):
            load_tokenizer(tmp_path / "tokenizer.json", "0")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointError, match="A run must hold its tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.json", "0")
    with pytest.raises(CheckpointError, match="not a regular file"):
        open_tokens(tmp_path / "tokenizer.json")
