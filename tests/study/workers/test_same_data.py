"""When two sets hold the same examples."""

import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from volano.data import Arrays
from volano.errors import ExploreError
from volano.study.workers.same_data import check_same_data, difference_of_data


class Digits(Dataset):
    """What a person writes: a set of one's own, made by every call of build."""

    def __init__(self, pixels, noise=0.0, transform=None):
        self.pixels, self.noise, self.transform = pixels, noise, transform

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return self.pixels[index]


@pytest.fixture
def pixels(digits):
    return digits[0][:100]


class TestDifferences:
    def test_the_same_object_is_the_same(self, pixels):
        data = Digits(pixels, transform=lambda x: x)
        assert difference_of_data(data, data) is None

    def test_tensors_are_compared_one_and_all(self, pixels):
        other = pixels.clone()
        assert difference_of_data(TensorDataset(pixels), TensorDataset(other)) is None
        other[77, 3] += 1  # no digest that looks at a few rows would see it
        assert "other tensors" in difference_of_data(TensorDataset(pixels), TensorDataset(other))

    def test_missing_values_are_the_same(self, pixels):
        holes = pixels.clone()
        holes[0, 0] = float("nan")
        assert difference_of_data(TensorDataset(holes), TensorDataset(holes.clone())) is None

    def test_kinds_and_lengths(self, pixels):
        assert (
            difference_of_data(TensorDataset(pixels), Digits(pixels)) == "TensorDataset and Digits"
        )
        assert difference_of_data(Digits(pixels), Digits(pixels[:50])) == "100 and 50 examples"

    def test_subsets_by_rows_and_what_is_behind_them(self, pixels):
        data = TensorDataset(pixels)
        assert (
            difference_of_data(
                Subset(data, range(10)), Subset(TensorDataset(pixels.clone()), list(range(10)))
            )
            is None
        )
        assert "rows" in difference_of_data(Subset(data, range(10)), Subset(data, range(1, 11)))
        assert "tensors" in difference_of_data(
            Subset(data, [1]), Subset(TensorDataset(pixels + 1), [1])
        )

    def test_sets_that_know_their_content(self, pixels):
        one, same, other = (Arrays(values) for values in (pixels, pixels.clone(), pixels + 1))
        assert difference_of_data(one, same) is None
        assert "other content" in difference_of_data(one, other)

    def test_sets_of_ones_own_by_what_they_hold(self, pixels):
        assert difference_of_data(Digits(pixels, 0.1), Digits(pixels.clone(), 0.1)) is None
        assert "noise: 0.1 and 0.2" in difference_of_data(Digits(pixels, 0.1), Digits(pixels, 0.2))
        assert difference_of_data(Digits(pixels), Digits(pixels + 1)) is not None

    def test_what_cannot_be_compared_is_refused(self, pixels):
        sets = [Digits(pixels, transform=torch.Generator()) for _ in range(2)]
        assert "cannot be compared" in difference_of_data(*sets)


def test_the_error_names_trials_set_and_difference(make_task, digits):
    pixels, labels = digits
    other = make_task(valid=TensorDataset(pixels[600:650], labels[600:650]))
    check_same_data(make_task(), 5, make_task(), 0)
    with pytest.raises(
        ExploreError, match=r"valid of trial 5 and of trial 0: 50 and 64 examples.*outside build"
    ):
        check_same_data(other, 5, make_task(), 0)
    with pytest.raises(ExploreError, match="data of trial 5"):
        check_same_data(
            make_task(data=TensorDataset(pixels[1:513], torch.zeros(512))), 5, make_task(), 0
        )
