"""State on the host: what stays where it is. What leaves a device is tested in
tests/device/test_separation.py."""

import pytest
import torch
from torch import nn

from volano import Plan
from volano.device import Device
from volano.training import Session
from volano.training.memory.offload import OffloadedActivations, OffloadedState, why_not_offloaded


@pytest.mark.parametrize(
    ("offload", "parts"),
    [
        ("activations", ["activations where they are"]),
        ("optimizer", ["the optimizer's state where it is"]),
        ("all", ["activations where they are", "the optimizer's state where it is"]),
    ],
)
def test_on_the_host_it_has_no_effect_and_says_so(make_task, offload, parts):
    notices = []
    session = Session(make_task(), Plan.baseline().pin(offload=offload), on_notice=notices.append)
    assert notices == [
        f"offload={offload} leaves {part}: cpu computes in the host's memory" for part in parts
    ]
    assert session.offloaded is None


def test_what_cannot_leave_says_why():
    class Elsewhere:
        is_cpu, name = False, "elsewhere"

    def why(**facts):
        return why_not_offloaded(Elsewhere(), **facts)

    assert why(sharding="none", is_compiled=False, what="activations") is None
    assert why(sharding="none", is_compiled=True, what="optimizer") is None
    assert "the compiler decides" in why(sharding="none", is_compiled=True, what="activations")
    assert "each rank keeps a part" in why(sharding="full", is_compiled=False, what="optimizer")


def test_parameters_their_views_and_small_tensors_stay():
    # Whose host is its device: what is packed is a copy.
    hooks = OffloadedActivations(Device("cpu"))
    weight, large, small = nn.Parameter(torch.rand(64, 64)), torch.rand(64, 64), torch.rand(4)
    for tensor in (weight, weight.t(), weight[1:], small):
        assert hooks._pack(tensor) is tensor
    for tensor in (large, large.t()):
        packed = hooks._pack(tensor)
        assert isinstance(packed, tuple)
        back = hooks._unpack(packed)
        assert torch.equal(back, tensor)
        assert back.stride() == tensor.stride()
        assert back.data_ptr() != tensor.data_ptr()


def test_state_is_written_into_the_same_host_memory(make_task):
    parameter = nn.Parameter(torch.rand(64, 64))
    optimizer = torch.optim.Adam([parameter], lr=0.1)
    offloaded, places = OffloadedState(optimizer, Device("cpu")), []
    for _ in range(2):
        parameter.grad = torch.rand(64, 64)
        with offloaded.fetched():
            optimizer.step()
        places.append(
            {name: tensor.data_ptr() for name, tensor in optimizer.state[parameter].items()}
        )
    assert places[0]["exp_avg"] == places[1]["exp_avg"]
    assert optimizer.state[parameter]["step"] == 2
