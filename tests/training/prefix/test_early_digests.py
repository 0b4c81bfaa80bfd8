"""What enters the frozen part as it lies in the batch is digested before it is asked for."""

import pytest
import torch

from volano.device import Device
from volano.training.prefix.early_digests import EarlyDigests


class Waits(EarlyDigests):
    """Counts the digests that are computed when they are asked for."""

    num_late = 0

    def __call__(self, tensors):
        self.num_late += 1
        return [tuple(row) for row in self.multilinear(tensors).tolist()]


def late(digests, tensors, region=0):
    """Returns whether these were computed when they were asked for, and right."""
    before = digests.num_late
    found = digests.of_region(region, tensors)
    assert found == [tuple(row) for row in digests.multilinear(tensors).tolist()]
    return digests.num_late > before


@pytest.fixture
def batches():
    return [(torch.rand(8, 3, 5), torch.arange(8), torch.rand(8, 2)) for _ in range(3)]


@pytest.fixture
def digests(batches):
    found = Waits(Device("cpu"))
    found.announce(batches[0])
    assert late(found, [batches[0][2], batches[0][0]])  # nobody knew that these enter it
    return found


def test_batches_that_were_announced_are_not_waited_for(digests, batches):
    for x, _, mask in batches[1:]:
        digests.announce((x, torch.arange(8), mask))
        assert not late(digests, [mask, x])
        assert not late(digests, [mask[:3], x[:3]])
        assert not late(digests, [mask[3:], x[3:]])
    assert late(digests, [batches[0][2], batches[0][0]])  # long gone


def test_what_is_not_the_batch_s_own_is_computed_then(digests, batches):
    x, labels, mask = batches[1]
    digests.announce(batches[1])
    assert late(digests, [mask, x * 2])
    assert late(digests, [mask, x.clone()])
    assert late(digests, [mask[:4], x[4:]])  # of other examples
    assert late(digests, [mask, x[..., :3]])
    assert late(digests, [labels], region=1)
    assert not late(digests, [mask, x])
    x[0] += 1  # written after it was digested
    assert late(digests, [mask, x])


def test_batches_of_another_form_are_no_harm(digests, batches):
    digests.announce(batches[0][0])
    digests.announce((torch.tensor(1.0), torch.arange(8), torch.rand(8, 2)))
    assert late(digests, [torch.rand(4, 2)])


def test_a_constant_is_digested_once_while_it_is_not_written(monkeypatch):
    digests = Waits(Device("cpu"))
    monkeypatch.setattr(digests._device, "is_cpu", False)
    mask = torch.rand(16, 4)
    first = digests.of_constant(mask[:8])
    assert digests.of_constant(mask[:8]) == first
    assert digests.num_late == 1
    assert digests.of_constant(mask[:4]) != first
    mask[0] = 2.0
    assert digests.of_constant(mask[:8]) != first
    for _ in range(20):
        digests.of_constant(torch.rand(3))
    assert len(digests._constants) <= 8
