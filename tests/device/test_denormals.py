"""Numbers below the smallest normal one, and the setting of a thread that takes them for 0."""

import threading

import pytest
import torch

from volano.device.denormals import are_denormals_flushed, denormals_flushed

CAN = torch.set_flush_denormal(False)


@pytest.mark.skipif(not CAN, reason="this processor cannot")
def test_they_are_zero_inside_and_as_before_afterwards():
    assert not are_denormals_flushed()
    with denormals_flushed() as can:
        assert can
        assert are_denormals_flushed()
        with denormals_flushed():
            assert are_denormals_flushed()
        assert are_denormals_flushed()  # an inner context leaves what it has not set
        found = []
        thread = threading.Thread(target=lambda: found.append(are_denormals_flushed()))
        thread.start()
        thread.join()
        assert found == [True]
    assert not are_denormals_flushed()


@pytest.mark.skipif(not CAN, reason="this processor cannot")
def test_normal_numbers_are_computed_as_ever():
    tiny = torch.finfo(torch.float32).tiny
    values = torch.tensor([tiny, -tiny, 1.0, 3e38, 1e-20])
    plain = values * values.flip(0) + values
    with denormals_flushed():
        assert torch.equal(values * values.flip(0) + values, plain)
