"""See test_race.py for the shares of runs."""

import torch

from volano.planner.search.batch_share import first_part


def test_the_first_examples_of_a_batch():
    batch = (torch.arange(10), torch.arange(10) + 5)
    assert [len(part) for part in first_part(batch, 0.3)] == [3, 3]
    assert first_part(batch, 1.0) is batch
    assert len(first_part(batch, 0.001)[0]) == 1
