"""What is held out is stratified, disjoint, and the same for the same seed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from volano.data.sources import LabelledImages, hold_out
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
        assert sorted([*kept, *held]) == list(range(len(images)))
        for number, count in enumerate(counts):
            of_class = (images.labels[torch.from_numpy(held)] == number).sum().item()
            assert 1 <= of_class <= count * copies - 1
            assert abs(of_class - 0.15 * count * copies) <= copies + 1
        # Copies of a picture lie next to each other here, and on the same side.
        assert not {row // copies for row in kept} & {row // copies for row in held}

    def test_the_seed_decides(self):
        images = self.images([0] * 40 + [1] * 40)
        assert hold_out(images, seed=1)[1].tolist() == hold_out(images, seed=1)[1].tolist()
        assert hold_out(images, seed=1)[1].tolist() != hold_out(images, seed=2)[1].tolist()

    def test_a_class_of_one_picture_is_refused(self):
        with pytest.raises(DataError, match="two different images.*got 1 in class '1'"):
            hold_out(self.images([0, 0, 1]), seed=0)
