"""The number of workers follows from what batches cost, and measuring leaves no trace."""

import time

import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset, TensorDataset

from volano.data import choose_workers


class Digits(Dataset):
    """Real pictures; each takes ``seconds`` to make, without using a core."""

    def __init__(self, seconds):
        self.pixels = torch.tensor(load_digits().data[:256], dtype=torch.uint8)
        self.seconds = seconds
        self.opened = False

    def __len__(self):
        return 256

    def __getitem__(self, index):
        self.opened = True  # as a dataset that opens its file when first asked
        if self.seconds:
            time.sleep(self.seconds)
        return self.pixels[index]


def test_gathering_needs_no_worker():
    choice = choose_workers(TensorDataset(torch.zeros(40, 2)), None, 8, num_cores=8)
    assert choice.workers == 0
    assert choice.reason.startswith("gathering a batch takes ")


def test_dear_examples_get_workers_and_nothing_is_opened_here():
    data = Digits(0.005)
    choice = choose_workers(data, None, 8, num_cores=8)
    assert choice.workers >= 1
    assert "through 2 workers a batch " in choice.reason
    assert not data.opened


def test_two_cores_get_one_worker():
    assert choose_workers(Digits(0.005), None, 8, num_cores=2).workers == 1


def test_a_short_run_is_measured_less():
    choice = choose_workers(Digits(0.005), None, 8, num_cores=8, num_steps=20)
    assert choice.workers == 1
    assert "not tried in so short a run" in choice.reason


def test_one_batch_is_all_there_is():
    assert choose_workers(Digits(0.005), None, 256, num_cores=2, num_steps=1).workers == 1


def test_what_goes_wrong_is_left_to_the_run():
    def collate(examples):
        raise ValueError("no")

    choice = choose_workers(Digits(0.0), collate, 8, num_cores=2)
    assert choice.workers in (0, 1)
