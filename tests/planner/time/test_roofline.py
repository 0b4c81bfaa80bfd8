"""Step times from operations and rates: what must hold whatever the figures are, and small cases by
hand."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from volano.device import Device, find_device, measure_kernels, measure_limits
from volano.plan import Plan
from volano.plan.prediction import Operation
from volano.planner.time.operations import describe_operation, is_computation
from volano.planner.time.roofline import BOUNDS, Rates, predict_compilation, predict_time

EAGER = Plan(device="cpu")
H100 = Rates.of_known(find_device("H100"))
KINDS = (
    "matmul",
    "convolution",
    "attention",
    "recurrent",
    "pointwise",
    "reduction",
    "normalization",
    "other",
)
operations = st.builds(
    Operation,
    name=st.sampled_from(("aten.mm.default", "aten.gelu.default", "aten.add.Tensor")),
    phase=st.sampled_from(("forward", "backward", "optimizer")),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(("fp32", "bf16", "fp16", "fp64", "int")),
    flops=st.integers(0, 10**15),
    num_bytes=st.integers(0, 10**11),
    count=st.integers(1, 100),
)
steps = st.lists(operations, max_size=20)
rates = st.sampled_from(
    [H100, Rates.of_known(find_device("V100")), dataclasses.replace(H100, ahead=False)]
)
plans = st.builds(
    Plan,
    precision=st.sampled_from(("fp32", "tf32", "bf16", "fp16")),
    compile=st.booleans(),
    memory_format=st.sampled_from(("contiguous", "channels_last")),
)


def operation(**changes):
    known = {
        "name": "aten.mm.default",
        "phase": "forward",
        "kind": "matmul",
        "dtype": "fp32",
        "flops": 0,
        "num_bytes": 0,
    }
    return Operation(**{**known, **changes})


@given(steps, rates, plans, st.integers(0, 10**11))
def test_bounds_and_kinds_add_up_to_the_step(step, rate, plan, moved):
    predicted = predict_time(step, rate, plan, moved_bytes=moved)
    assert sum(predicted.bounds.values()) == pytest.approx(predicted.step)
    assert sum(predicted.kinds.values()) == pytest.approx(predicted.step)
    assert tuple(predicted.bounds) == BOUNDS
    assert all(seconds >= 0 for seconds in predicted.bounds.values())


@given(steps, rates, plans, operations)
def test_more_work_is_never_faster(step, rate, plan, more):
    before = predict_time(step, rate, plan).step
    assert predict_time([*step, more], rate, plan).step >= before * (1 - 1e-12)
    for field in ("flops", "num_bytes", "count"):
        grown = dataclasses.replace(more, **{field: 2 * getattr(more, field)})
        with_grown = predict_time([*step, grown], rate, plan).step
        assert with_grown >= predict_time([*step, more], rate, plan).step * (1 - 1e-12)


@given(steps, rates, plans)
def test_a_compiled_step_is_slower_by_its_call_at_most_and_takes_time_to_compile(step, rate, plan):
    eager = predict_time(step, rate, plan.pin(compile=False))
    compiled = predict_time(step, rate, plan.pin(compile=True))
    assert compiled.step <= eager.step * (1 + 1e-12) + 1.01e-4
    assert compiled.bounds["memory"] <= eager.bounds["memory"] * (1 + 1e-12)
    assert eager.startup == 0 < compiled.startup


@given(steps, plans, st.floats(1, 10))
def test_a_faster_device_is_never_slower(step, plan, factor):
    faster = dataclasses.replace(
        H100,
        flops={name: rate * factor for name, rate in H100.flops.items()},
        memory=H100.memory * factor,
    )
    assert predict_time(step, faster, plan).step <= predict_time(step, H100, plan).step * (
        1 + 1e-12
    )


@given(steps, plans)
def test_one_operation_five_times_is_five_operations(step, plan):
    repeated = [dataclasses.replace(each, count=5 * each.count) for each in step]
    assert predict_time(repeated, H100, plan).step == pytest.approx(
        predict_time(step * 5, H100, plan).step
    )


def test_arithmetic_and_bytes_add_up():
    rate = Rates(
        name="x",
        flops={"fp32": 100.0},
        memory=10.0,
        launch=0.0,
        ahead=True,
        efficiency={"matmul": 0.5},
    )
    predicted = predict_time([operation(flops=100, num_bytes=30, count=2)], rate, EAGER)
    assert predicted.bounds == {"compute": 4.0, "memory": 6.0, "launch": 0.0, "host": 0.0}
    # A kernel was measured with its bytes: only more of them than it takes time for are added.
    measured = dataclasses.replace(rate, kernels={"matmul fp32": 50.0})
    assert predict_time([operation(flops=100, num_bytes=10)], measured, EAGER).step == 2
    assert predict_time([operation(flops=100, num_bytes=30)], measured, EAGER).step == 3


def test_a_host_that_runs_ahead_is_waited_for_only_where_it_is_slower():
    rate = Rates(name="x", flops={"fp32": 1.0}, memory=1.0, launch=3.0, ahead=True, efficiency={})
    many_small = [operation(num_bytes=1, count=4)]
    assert predict_time(many_small, rate, EAGER).bounds == {
        "compute": 0.0,
        "memory": 4.0,
        "launch": 8.0,
        "host": 0.0,
    }
    assert predict_time([operation(num_bytes=5)], rate, EAGER).bounds["launch"] == 0
    behind = dataclasses.replace(rate, ahead=False)
    assert predict_time(many_small, behind, EAGER).step == 4 + 12


def test_precision_chooses_the_rate():
    product = [operation(flops=10**12)]
    fp32, tf32 = (
        predict_time(product, H100, Plan(precision=name)).step for name in ("fp32", "tf32")
    )
    bf16 = predict_time([operation(flops=10**12, dtype="bf16")], H100, Plan(precision="bf16")).step
    assert fp32 / tf32 == pytest.approx(494.7 / 66.9)
    assert tf32 / bf16 == pytest.approx(2)
    v100 = Rates.of_known(find_device("V100"))
    assert predict_time([operation(flops=10**12, dtype="bf16")], v100, EAGER) == predict_time(
        product, v100, EAGER
    )
    assert (
        predict_time([operation(flops=10**12, dtype="fp64")], v100, EAGER).step
        > predict_time(product, v100, EAGER).step
    )


def test_measured_kernels_go_before_shares_of_the_peak():
    rate = dataclasses.replace(
        H100, kernels={"convolution channels_last bf16": 1e12, "attention bf16": 2e12}
    )
    convolution = operation(kind="convolution", dtype="bf16", flops=10**12)
    assert predict_time(
        [convolution], rate, Plan(memory_format="channels_last")
    ).step == pytest.approx(1.0)
    assert predict_time([convolution], rate, Plan(memory_format="contiguous")).step < 0.1
    assert predict_time(
        [operation(kind="attention", dtype="bf16", flops=10**12)], rate, EAGER
    ).step == pytest.approx(0.5)


def test_only_what_is_compiled_is_fused():
    plan = Plan(compile=True)
    update = [operation(kind="pointwise", phase="optimizer", num_bytes=10**9)]
    assert (
        predict_time(update, H100, plan).bounds["memory"]
        == predict_time(update, H100, EAGER).bounds["memory"]
    )
    forward = [operation(kind="pointwise", num_bytes=10**9)]
    assert predict_time(forward, H100, plan).step < predict_time(forward, H100, EAGER).step
    assert predict_compilation(update) < predict_compilation(forward)


def test_what_is_offloaded_crosses_the_link_and_a_cpu_has_none():
    assert predict_time([], H100, EAGER, moved_bytes=63 * 10**9).bounds["host"] == pytest.approx(
        1.0
    )
    on_host = dataclasses.replace(H100, link=None)
    assert predict_time([], on_host, EAGER, moved_bytes=63 * 10**9).step == 0


def test_figures_say_where_they_come_from(monkeypatch):
    monkeypatch.setattr("volano.device.limits._SECONDS_PER_LIMIT", 0.02)
    monkeypatch.setattr("volano.device.kernels._SECONDS_PER_KERNEL", 0.01)
    here = Device("cpu")
    kernels = measure_kernels(here)
    measured = Rates.of_measured(measure_limits(here), kernels, name="cpu")
    assert predict_time([], H100, EAGER).origin == "prior"
    assert predict_time([], measured, EAGER).origin == "calibrated"
    assert not measured.ahead
    assert measured.link is None
    assert measured.kernels == {name: rate for name, rate in kernels.items() if name != "launch"}
    for kind in ("convolution contiguous", "convolution channels_last", "attention", "recurrent"):
        assert measured.kernels[f"{kind} fp32"] > 1e6
    assert 1e-7 < kernels["launch"] < 1e-3
    assert Rates.of_measured(measure_limits(here)).launch > 0


class Recorder(TorchDispatchMode):
    """Operations of a real step, in order."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if is_computation(func):
            found = describe_operation(func, args, kwargs or {}, result, "forward")
            self.operations += [] if found is None else [found]
        return result


def test_a_real_step_of_a_larger_network_takes_longer():
    def recorded(width):
        model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rows, labels = torch.randn(32, 64), torch.randint(10, (32,))

        def step():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(rows), labels).backward()
            optimizer.step()

        with Recorder() as recorder:
            step()
        return recorder.operations

    small, large = recorded(16), recorded(512)
    # Forward 2 x rows x weights; backward the same for the weights' gradients, and for the hidden
    # layer's input.
    assert sum(op.flops for op in large if op.kind == "matmul") == 2 * 32 * (
        2 * 64 * 512 + 3 * 512 * 10
    )
    slow = dataclasses.replace(H100, ahead=False, launch=0.0)
    assert predict_time(large, slow, EAGER).step > predict_time(small, slow, EAGER).step
