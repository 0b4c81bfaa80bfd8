import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from volano.apps.text.objective import RandomOffsets
from volano.data import TokenWindows, open_tokens, scoring_windows, write_tokens
from volano.errors import CheckpointError, DataError


def test_tokens_come_back_from_their_file(tmp_path):
    pieces = [np.arange(5), np.arange(0), np.arange(32000, 32700)]
    assert write_tokens(tmp_path / "tokens.npy", pieces) == 705
    tokens = open_tokens(tmp_path / "tokens.npy")
    assert tokens.dtype == np.uint16
    assert np.array_equal(tokens, np.concatenate(pieces))
    assert np.array_equal(np.load(tmp_path / "tokens.npy"), tokens)  # plain NumPy reads it too


@pytest.mark.parametrize("content", [None, b"", b"\x93NUMPY\x01\x00"])
def test_a_damaged_file_is_an_error(tmp_path, content):
    if content is not None:
        (tmp_path / "tokens.npy").write_bytes(content)
    with pytest.raises(CheckpointError, match="tokens must be readable"):
        open_tokens(tmp_path / "tokens.npy")


class TestWindows:
    def test_they_overlap_by_half(self):
        windows = TokenWindows(np.arange(100, dtype=np.uint16), 8)
        assert len(windows) == 11
        assert windows[0].tolist() == list(range(16))
        assert windows[10].tolist() == list(range(80, 96))

    def test_nothing_is_copied(self, tmp_path):
        write_tokens(tmp_path / "tokens.npy", [np.arange(100)])
        tokens = open_tokens(tmp_path / "tokens.npy")
        windows = TokenWindows(tokens, 8)
        assert windows.tree.data_ptr() == tokens.ctypes.data

    def test_large_ids_stay_what_they_are(self):
        windows = TokenWindows(np.full(16, 32767, dtype=np.uint16), 8)
        assert windows[0].long().unique().tolist() == [32767]

    def test_too_few_tokens(self):
        with pytest.raises(
            DataError, match="one window of twice the context; got 15 tokens and a context of 8"
        ):
            TokenWindows(np.arange(15, dtype=np.uint16), 8)

    def test_the_fingerprint_knows_content_and_cut(self):
        tokens = np.arange(100, dtype=np.uint16)
        same = TokenWindows(tokens.copy(), 8).fingerprint()
        assert TokenWindows(tokens, 8).fingerprint() == same
        assert TokenWindows(tokens, 16).fingerprint() != same
        assert TokenWindows(tokens[::-1].copy(), 8).fingerprint() != same

    def test_random_offsets_reach_every_token_and_differ_by_generator(self):
        context = 8
        windows = TokenWindows(np.arange(200, dtype=np.uint16), context)
        crop = RandomOffsets(context=context)
        starts = set()
        for seed in range(60):
            batch = crop(windows.tree, torch.Generator().manual_seed(seed))
            assert batch.shape == (len(windows), context + 1)
            # Whole stretches of the text.
            assert torch.equal(batch.diff(dim=1), torch.ones_like(batch[:, 1:]))
            starts |= set(batch[:, 0].tolist())
        assert starts == set(range(len(windows) * context))
        again = crop(windows.tree, torch.Generator().manual_seed(5))
        assert torch.equal(again, crop(windows.tree, torch.Generator().manual_seed(5)))


@given(st.integers(2, 200), st.integers(2, 40), st.data())
def test_scoring_windows_count_every_token_once(num, context, data):
    stride = data.draw(st.integers(1, context))
    tokens = np.arange(1, num + 1, dtype=np.uint16)
    ids, first = scoring_windows(tokens, context, stride)
    counted = []
    for row, start in zip(ids, first.tolist(), strict=True):
        targets = row[1:]
        counted += [
            target for place, target in enumerate(targets.tolist()) if place >= start and target
        ]
    assert counted == list(range(2, num + 1))  # all but the first, each once, in order
    assert all(start >= context - stride for start in first[1:].tolist())
