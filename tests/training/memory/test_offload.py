"""State on the host: what stays where it is. What leaves a device is tested in
tests/device/test_separation.py."""

import pytest
import torch
from torch import nn

from volano import Plan
from volano.device import Device
from volano.device.transfer import SideCopies, side_copies
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
        assert packed is not tensor
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


SENT = ["side waits for computation", "on side", "out", "back", "kept for side"]


class StreamedDevice(Device):
    """The host as a device with a second stream, which notes what is queued on it."""

    def __init__(self):
        super().__init__("cpu")
        self.is_cpu, self.log, self.can_pin = False, [], True

    def stream(self):
        return _Stream("side", self.log)

    def current_stream(self):
        return _Stream("computation", self.log)

    def event(self):
        return _Event(self.log)

    def to_host(self, tensor, target=None):
        self.log.append("out")
        return tensor.clone() if target is None else target.copy_(tensor)

    def keep_until_done(self, tensor, stream):
        self.log.append(f"kept for {stream.name}")


class _Stream:
    def __init__(self, name, log):
        self.name, self._log = name, log

    def __enter__(self):
        self._log.append(f"on {self.name}")

    def __exit__(self, *_):
        self._log.append("back")

    def wait_stream(self, other):
        self._log.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event):
        self._log.append(f"{self.name} waits for copy {event.number}")


class _Event:
    def __init__(self, log):
        self.number, self._log = sum(entry.startswith("copied") for entry in log), log

    def record(self, _stream):
        self._log.append(f"copied {self.number}")


def test_copies_run_beside_the_computation_and_come_back_ahead():
    device = StreamedDevice()
    hooks = OffloadedActivations(device, SideCopies(device))
    tensors = [torch.rand(64, 64) for _ in range(3)]
    packed = [hooks._pack(tensor) for tensor in tensors]
    assert device.log == 3 * SENT
    device.log.clear()
    for place in (2, 1, 0):
        assert torch.equal(hooks._unpack(packed[place]), tensors[place])
    waits = [entry for entry in device.log if "waits for copy" in entry or "copied" in entry]
    # The next tensor is on its way before the computation waits for this one.
    assert waits == [
        "copied 0", "copied 1", "computation waits for copy 0",
        "copied 2", "computation waits for copy 1", "computation waits for copy 2",
    ]  # fmt: skip
    assert torch.equal(hooks._unpack(packed[1]), tensors[1])  # a second backward pass


def test_the_backward_pass_is_the_same():
    device, gradients = StreamedDevice(), []
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
    for hooks in (None, OffloadedActivations(device, SideCopies(device))):
        inputs = torch.linspace(-1, 1, 64 * 64).view(64, 64).requires_grad_()
        if hooks is None:
            loss = net(inputs).square().sum()
        else:
            with hooks:
                loss = net(inputs).square().sum()
        gradients.append(torch.autograd.grad(loss, [inputs, *net.parameters()]))
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    assert "out" in device.log


def test_without_streams_or_locked_memory_copies_are_in_the_computation():
    device = StreamedDevice()
    assert side_copies(device) is not None
    device.can_pin = False
    assert side_copies(device) is None
    assert side_copies(Device("cpu")) is None


def test_the_optimizers_state_goes_beside_the_next_forward_pass():
    device = StreamedDevice()
    parameter = nn.Parameter(torch.rand(64, 64))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    offloaded = OffloadedState(optimizer, device)
    for _ in range(2):
        parameter.grad = torch.rand(64, 64)
        device.log.clear()
        with offloaded.fetched():
            optimizer.step()
    assert device.log[0] == "computation waits for side"  # for the way out
    assert device.log[1:] == SENT
