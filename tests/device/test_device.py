import pytest
import torch

from volano.device import Device
from volano.errors import PlanError, UsageError


def test_the_cpu_is_a_device():
    device = Device("cpu")
    assert device.name == "cpu"
    assert device.move({"x": torch.zeros(2)})["x"].device.type == "cpu"
    device.synchronize()
    memory = device.memory()
    assert 0 < memory.allocated <= memory.peak <= memory.total
    assert 0 < device.free_bytes() <= memory.total


@pytest.mark.parametrize("name", ["tpu9", "meta", "xpu:0", "warp drive"])
def test_a_device_that_is_not_here_is_refused(name):
    with pytest.raises(UsageError, match="Here: cpu"):
        Device(name)


def test_settings_are_put_back():
    device = Device("cpu")
    before = torch.get_num_threads()
    with device.settings(precision="fp32", threads=2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before


def test_precisions():
    device = Device("cpu")
    assert [name for name in ("fp32", "tf32", "bf16", "fp16") if device.supports(name)] == [
        "fp32",
        "bf16",
    ]
    with pytest.raises(PlanError, match="computes in fp32, bf16"):
        device.check_precision("fp16")
    with device.autocast("bf16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with device.autocast("fp32"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_seeds_reach_the_generator_of_the_device():
    device = Device("cpu")
    state = device.rng_state()
    device.seed(5)
    first = torch.rand(3)
    device.seed(5)
    assert torch.equal(torch.rand(3), first)
    device.set_rng_state(state)
    assert torch.equal(torch.get_rng_state(), state["host"])


class Backend:
    """A device module that says what CUDA's says on a card without units for bf16."""

    @staticmethod
    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return including_emulation

    @staticmethod
    def mem_get_info(_):
        return 3, 7


@pytest.fixture
def accelerator(monkeypatch):
    """A device that is none of this machine's, behind torch 2.9's interface."""
    device = Device("cpu")
    device.is_cpu, device._module = False, Backend
    monkeypatch.delattr(torch.accelerator, "get_memory_info", raising=False)
    return device


def test_the_state_of_a_device_that_is_not_the_current_one(accelerator, monkeypatch):
    states = {"standin:0": "current", "standin:1": "own"}
    module = type(
        "Backend",
        (),
        {
            "get_rng_state": staticmethod(lambda device="standin:0": states[str(device)]),
            "set_rng_state": staticmethod(
                lambda state, device="standin:0": states.update({str(device): state})
            ),
        },
    )
    accelerator._module = module
    accelerator.torch_device = type(
        "Place", (), {"index": 1, "type": "standin", "__str__": lambda _: "standin:1"}
    )()
    noted = accelerator.rng_state()
    assert noted["device"] == "own"
    assert accelerator.generator_states()[-1] == "own"
    accelerator.set_rng_state({**noted, "device": "later"})
    assert states == {"standin:0": "current", "standin:1": "later"}


def test_tf32_is_of_nvidias_matrix_units(accelerator, monkeypatch):
    accelerator._module = type(
        "Backend", (), {"get_device_capability": staticmethod(lambda: (9, 0))}
    )
    assert accelerator.supports("tf32")
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert not accelerator.supports("tf32")


def test_pages_that_cannot_be_locked_leave_no_error_behind(accelerator, monkeypatch):
    errors = []

    class Runtime:
        @staticmethod
        def cudaHostRegister(*_):  # noqa: N802 - its name there
            errors.append("out of lockable memory")
            return 2

    def launch(*_, **__):
        if errors:
            raise RuntimeError(errors.pop())

    accelerator._module = type("Backend", (), {"cudart": staticmethod(Runtime)})
    accelerator.__dict__["can_pin"] = True
    memory = torch.ones(8)
    monkeypatch.setattr(torch, "zeros", launch)
    assert not accelerator.lock_pages(memory)
    assert errors == []


def test_emulated_bf16_is_not_fast(accelerator):
    assert accelerator.supports("bf16")
    assert not accelerator.has_bf16_units


def test_memory_is_asked_of_the_module_where_torch_has_no_other_way(accelerator):
    assert accelerator.free_bytes() == 3
    memory = accelerator.memory()
    assert (memory.allocated, memory.peak, memory.total) == (None, None, 7)


def test_a_backend_without_statistics_reports_none(accelerator, monkeypatch):
    for name in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.accelerator, name, lambda _: 0, raising=False)
    memory = accelerator.memory()
    assert memory.allocated is None
    assert memory.peak is None


def test_on_the_host_nothing_is_sent_and_nothing_waited_for():
    numbers = torch.arange(3)
    assert Device("cpu").send(numbers) is numbers
    assert Device("cpu").mark()() is None
