"""Memory in which batches travel."""

import torch

from volano.data.feed.slots import Placed, Slots, SlotWriter, bytes_in_slot, unpacked, with_room
from volano.device import Device
from volano.task import tensors_of

CPU = Device("cpu")


class TestSlots:
    def test_packed_and_unpacked_are_inverse(self):
        batch = {
            "a": torch.arange(7, dtype=torch.uint8),
            "b": (torch.rand(3, 5, dtype=torch.float64), ["x", None]),
            "c": [torch.tensor(3), torch.rand(2, 3).t()],
        }
        memory = torch.empty(with_room(bytes_in_slot(batch)), dtype=torch.uint8)
        packed = SlotWriter(memory).packed(batch)
        assert isinstance(packed["a"], Placed)
        assert packed["c"][1] is batch["c"][1]  # a transposed one would come out with other strides
        for mine, theirs in zip(
            tensors_of(unpacked(packed, memory)), tensors_of(batch), strict=True
        ):
            assert torch.equal(mine, theirs)
            assert mine.stride() == theirs.stride()

    def test_what_does_not_fit_travels_by_itself(self):
        batch = [torch.zeros(100), torch.ones(1)]
        packed = SlotWriter(torch.empty(256, dtype=torch.uint8)).packed(batch)
        assert packed[0] is batch[0]
        assert isinstance(packed[1], Placed)

    def test_what_is_no_ordinary_tensor_on_the_host_stays_as_it_is(self):
        batch = [
            torch.eye(3).to_sparse(),
            torch.empty(3, device="meta"),
            torch.ones(2, requires_grad=True),
        ]
        packed = SlotWriter(torch.empty(4096, dtype=torch.uint8)).packed(batch)
        assert all(mine is theirs for mine, theirs in zip(packed, batch, strict=True))
        assert bytes_in_slot(batch) == 0

    def test_a_slot_is_free_when_nobody_looks_at_it(self):
        slots = Slots(CPU, 2, 4096, shared=True)
        first, second = slots.acquire(), slots.acquire()
        assert {first, second} == {0, 1}
        assert slots.acquire() is None
        view = slots.memory(first)[8:16].view(torch.float32)[1]
        assert slots.acquire() is None
        del view
        assert slots.acquire() == first
        slots.release(second, None)
        assert slots.acquire() == second
        slots.close()


class Copy:
    """A copy to a device that is behind."""

    is_done = False

    def query(self):
        return self.is_done

    def synchronize(self):
        self.is_done = True


def test_waiting_for_the_device_is_told_apart():
    waits = []
    slots = Slots(CPU, 1, 64, shared=False, on_throttled=waits.append)
    assert slots.acquire() == 0
    assert waits == []
    slots.release(0, Copy())
    assert slots.acquire() == 0
    assert len(waits) == 1
    slots.close()
