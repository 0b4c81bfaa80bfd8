"""Copies on the host share nothing, and take the locked memory of the one before."""

import pytest
import torch

from volano.training.checkpoints import host_copy
from volano.training.checkpoints.host_copy import HostCopies


def test_a_copy_shares_nothing_and_keeps_ties():
    weight = torch.arange(6.0).reshape(2, 3)
    state = {"a": weight, "b": [weight, weight.T], "c": (1, "x", None), "empty": torch.empty(0)}
    copy = HostCopies().of(state)
    weight.zero_()
    assert copy["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert copy["b"][0] is copy["a"]
    assert copy["b"][1].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert copy["c"] == (1, "x", None)


def test_a_copy_is_in_the_same_memory_format():
    kernel = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    assert HostCopies().of([kernel])[0].stride() == kernel.stride()


class There(torch.Tensor):
    """A tensor that says that it lies on an accelerator."""

    @property
    def device(self):
        return torch.device("xpu", 0)


class Locking:
    """An accelerator that locks memory, as long as there is any."""

    has_memory, can_pin = True, True

    def __init__(self, _name):
        pass

    def to_host(self, tensor, target=None):
        if target is None and not Locking.has_memory:
            raise torch.OutOfMemoryError("out of memory")
        target = torch.empty(tensor.shape) if target is None else target
        return target.copy_(tensor.as_subclass(torch.Tensor))

    def synchronize(self):
        pass


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.setattr(host_copy, "Device", Locking)
    yield
    Locking.has_memory = True


def there(*values):
    return torch.tensor(values).as_subclass(There)


def test_locked_memory_is_used_again(accelerator):
    copies = HostCopies()
    first = copies.of({"a": there(1.0, 2.0), "b": there(3.0)})
    places = {name: tensor.data_ptr() for name, tensor in first.items()}
    assert copies.locked_bytes == 12
    second = copies.of({"b": there(6.0), "a": there(4.0, 5.0), "c": there(7.0)})
    assert {name: second[name].data_ptr() for name in places} == places
    assert {name: tensor.tolist() for name, tensor in second.items()} == {
        "a": [4.0, 5.0], "b": [6.0], "c": [7.0],
    }  # fmt: skip
    assert copies.locked_bytes == 16
    copies.of({"c": there(7.0)})
    assert copies.locked_bytes == 4


def test_without_memory_to_lock_a_copy_is_made_all_the_same(accelerator):
    told = []
    copies = HostCopies(told.append)
    Locking.has_memory = False
    assert copies.of([there(1.0), there(2.0)]) == [torch.tensor([1.0]), torch.tensor([2.0])]
    assert told == ["no memory could be locked for the copy of the state: saves are slower"]
    assert copies.locked_bytes == 0
