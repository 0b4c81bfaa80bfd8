"""What is held out is stratified, disjoint, and the same for the same seed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from volano.data.sources import LabelledImages, content_key, hold_out, hold_out_rows
from volano.errors import DataError


class TestHoldOut:
    @staticmethod
    def images(labels, copies=1):
        count = len(labels)
        pixels = (
            torch.arange(count, dtype=torch.int32)
            .repeat_interleave(copies)
            .view(torch.uint8)
            .view(-1, 1, 2, 2)
        )
        labels = torch.tensor(labels).repeat_interleave(copies)
        classes = tuple(str(number) for number in range(int(labels.max()) + 1))
        return LabelledImages(
            images=pixels, labels=labels, classes=classes, names=("",) * len(labels)
        )

    @settings(deadline=None)
    @given(
        st.lists(st.integers(2, 40), min_size=2, max_size=5), st.integers(1, 3), st.integers(0, 99)
    )
    def test_stratified_and_disjoint(self, counts, copies, seed):
        labels = [number for number, count in enumerate(counts) for _ in range(count)]
        images = self.images(labels, copies)
        kept, held = hold_out(images, seed=seed)
        # Of a group of copies one is held out, or all are trained on.
        tested, trained = ({row // copies for row in side.tolist()} for side in (held, kept))
        assert sorted([*tested, *trained]) == list(range(len(labels)))
        assert len(held) == len(tested)
        assert len(kept) == copies * len(trained)
        for number, count in enumerate(counts):
            of_class = (images.labels[torch.from_numpy(held)] == number).sum().item()
            assert 1 <= of_class <= min(count - 1, max(1, round(0.3 * count)))

    @settings(deadline=None)
    @given(st.integers(0, 99), st.integers(0, 200))
    def test_a_new_one_moves_no_other(self, seed, place):
        keys = [content_key(f"{number}".encode()) for number in range(200)]
        _, held = hold_out_rows(keys, [0, 1] * 100, ("a", "b"), seed=seed)
        more = [*keys[:place], content_key(b"new"), *keys[place:]]
        labels = [0, 1] * 100
        labels.insert(place, 0)
        _, again = hold_out_rows(more, labels, ("a", "b"), seed=seed)
        assert {more[row] for row in again} - {content_key(b"new")} == {keys[row] for row in held}

    def test_many_copies_do_not_unbalance_a_share(self):
        keys = [content_key(f"{number}".encode()) for number in range(300)]
        for seed in range(20):
            copied = [*keys, *[keys[0]] * 92]
            _, held = hold_out_rows(copied, [0] * 392, ("a",), seed=seed)
            assert 0.05 < len(held) / 300 < 0.3

    def test_the_seed_decides(self):
        images = self.images([0] * 40 + [1] * 40)
        assert hold_out(images, seed=1)[1].tolist() == hold_out(images, seed=1)[1].tolist()
        assert hold_out(images, seed=1)[1].tolist() != hold_out(images, seed=2)[1].tolist()

    def test_a_class_of_one_picture_is_refused(self):
        with pytest.raises(DataError, match="two different images.*got 1 in class '1'"):
            hold_out(self.images([0, 0, 1]), seed=0)
