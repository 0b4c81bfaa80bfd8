import torch

from volano import Plan
from volano.training import throwaway_session


def test_settings_and_random_state_are_put_back(make_task):
    torch.manual_seed(123456789)  # not the seed of the task
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    with throwaway_session(make_task(), Plan.baseline().pin(threads=threads + 1)) as session:
        assert torch.get_num_threads() == threads + 1
        assert not torch.equal(torch.get_rng_state(), before)
        assert session.step == 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), before)
