"""Predictions are made once for plans that share a capture, and only if they are asked for."""

import pytest
import torch
from torch import nn

from planner.searching import PLAIN, RATES, make_task
from volano.device import Device
from volano.device.isolated import IsolatedError
from volano.plan.prediction import MemoryPrediction, Operation
from volano.planner import cost_model
from volano.planner.cost_model import CostModel
from volano.planner.memory.predict import Prediction, needed_bytes
from volano.planner.task_profile import profile_task

MIB = 2**20
PRODUCT = Operation(
    name="aten.mm.default", phase="forward", kind="matmul", dtype="fp32", flops=10**9, num_bytes=1
)


@pytest.fixture(scope="module")
def profile():
    return profile_task(make_task(), Device("cpu"))


@pytest.fixture
def captured(monkeypatch, tmp_path):
    """The plans of which a capture was made; each would take 10 MiB."""
    plans = []

    def trace_each(_task, some, **_):
        plans.extend(some)
        return list(some)

    def prediction_of(_traced, _plan, target):
        memory = MemoryPrediction(peak=10 * MIB, lower=10 * MIB, upper=12 * MIB)
        return Prediction(memory=memory, target=target, operations=(PRODUCT,), has_randomness=False)

    monkeypatch.setattr(cost_model, "trace_each", trace_each)
    monkeypatch.setattr(cost_model, "prediction_of", prediction_of)
    monkeypatch.setattr(cost_model, "kept_calibration", cost_model.Calibration)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("volano.planner.time.compile_time.processor_slowness", lambda: 3.0)
    monkeypatch.setattr(cost_model, "rates_of", lambda *_: RATES)
    return plans


def model_of(profile, *, budget=None, **options):
    return CostModel(make_task(), profile, budget=budget, **options)


def test_a_small_net_on_much_memory_is_no_question(profile, monkeypatch):
    monkeypatch.setattr(Device, "free_bytes", lambda _: 2**34)
    found = model_of(profile)
    assert (found.is_tight, found.is_asked, found.looks_into_compiled) == (False, False, False)
    monkeypatch.setattr(Device, "free_bytes", lambda _: 2**17)
    assert model_of(profile).is_tight
    monkeypatch.setattr(Device, "free_bytes", lambda _: None)
    assert not model_of(profile).is_tight
    assert model_of(profile, budget=2**34).is_tight


@pytest.mark.parametrize(("num_tokens", "is_tight"), [(8, False), (1024, True)])
def test_many_tokens_are_much_memory_though_their_batch_is_small(num_tokens, is_tight, monkeypatch):
    monkeypatch.setattr(Device, "free_bytes", lambda _: 2**26)
    ids = torch.zeros(64, num_tokens, dtype=torch.int64)
    task = make_task(
        model=lambda: nn.Sequential(nn.Embedding(50, 16), nn.Linear(16, 256), nn.Linear(256, 50)),
        data=torch.utils.data.TensorDataset(ids, ids),
    )
    profile = profile_task(task, Device("cpu"))
    assert profile.token_bytes == (16 + 256 + 50) * 12
    assert CostModel(task, profile, budget=None).is_tight == is_tight


def test_nothing_is_captured_unless_it_is_asked_for(profile, captured, monkeypatch):
    monkeypatch.setattr(Device, "free_bytes", lambda _: 2**34)
    found = model_of(profile)
    answers = (found.memory(PLAIN), found.verdict(PLAIN), found.time(PLAIN), found.needed(PLAIN))
    assert answers == (None, None, None, None)
    assert captured == []
    assert found.startup(PLAIN.pin(compile=True)) == 3 * cost_model.COMPILE_SECONDS


def test_plans_that_differ_in_threads_and_allocator_alone_share_a_capture(profile, captured):
    found = model_of(profile, budget=100 * MIB)
    assert found.verdict(PLAIN) == found.verdict(PLAIN.pin(threads=1)) == "FITS"
    assert found.verdict(PLAIN.pin(allocator="keep")) == "FITS"
    assert len(captured) == 1
    found.memory(PLAIN.pin(precision="bf16"))
    assert [plan.precision for plan in captured] == ["fp32", "bf16"]


def test_several_are_captured_at_once_unless_memory_is_short(profile, captured, monkeypatch):
    plans = [PLAIN, PLAIN.pin(compile=True), PLAIN.pin(precision="bf16")]
    found = model_of(profile, budget=100 * MIB)
    found.capture(plans)
    assert captured == []
    monkeypatch.setattr(Device, "free_bytes", lambda _: 2**34)
    found = model_of(profile)
    found.capture(plans)  # nobody has asked
    assert captured == []
    found.is_asked = True
    found.capture(plans)
    assert [(plan.precision, plan.compile) for plan in captured] == [
        ("fp32", False),
        ("bf16", False),
    ]
    assert found.time(PLAIN) is not None
    found.capture(plans)
    assert len(captured) == 2


@pytest.mark.parametrize(("free", "num_captured"), [(2**34, 2), (2**10, 0)])
def test_for_a_device_that_is_not_here_it_is_this_hosts_memory(
    profile, captured, monkeypatch, free, num_captured
):
    monkeypatch.setattr(Device, "free_bytes", lambda _: free)
    kept = {}
    found = model_of(profile, budget=100 * MIB, rates=RATES, captures=kept)
    found.capture([PLAIN, PLAIN.pin(precision="bf16")])
    assert len(captured) == num_captured
    again = model_of(profile, budget=100 * MIB, rates=RATES, captures=kept)
    again.capture([PLAIN, PLAIN.pin(precision="tf32")])  # as fp32
    assert len(captured) == num_captured


def test_a_verdict_is_of_the_budget(profile, captured):
    assert model_of(profile, budget=9 * MIB).verdict(PLAIN) == "NO"
    found = model_of(profile, budget=11 * MIB)
    assert found.verdict(PLAIN) == "UNCERTAIN"
    memory = MemoryPrediction(peak=10 * MIB, lower=10 * MIB, upper=12 * MIB)
    assert found.needed(PLAIN) == needed_bytes(Prediction(memory=memory, target="cpu"))
    assert found.has_randomness(PLAIN) is False


def test_the_memory_of_compiled_plans_is_looked_into_on_request(profile, captured):
    found = model_of(profile, budget=100 * MIB)
    found.looks_into_compiled = False
    assert found.memory(PLAIN.pin(compile=True)) is None
    assert captured == []
    found.is_asked = True
    found.look_into(PLAIN.pin(compile=True))
    assert found.memory(PLAIN.pin(compile=True)) is not None
    assert found.memory(PLAIN.pin(compile=True, optimizer="fused")) is None
    found.looks_into_compiled = True
    assert found.memory(PLAIN.pin(compile=True, optimizer="fused")) is not None


def test_a_device_that_is_not_here_takes_the_eager_step_for_the_compiled(profile, captured):
    found = model_of(profile, budget=100 * MIB, rates=RATES)
    found.looks_into_compiled = False
    assert found.memory(PLAIN.pin(compile=True)) is not None
    assert not captured[0].compile


def test_why_nothing_is_predicted_is_said_once(profile, monkeypatch):
    def trace_each(_task, some, **_):
        return [IsolatedError("A step must be captured", got="it reads a value") for _ in some]

    monkeypatch.setattr(cost_model, "trace_each", trace_each)
    found = model_of(profile, budget=MIB)
    assert found.memory(PLAIN) is found.verdict(PLAIN) is found.time(PLAIN) is None
    found.memory(PLAIN.pin(precision="bf16"))
    assert len(found.notices) == 1
    assert found.notices[0].startswith("not predicted, but measured:")


def test_one_timed_step_corrects_all_predictions_of_the_task(profile, captured):
    found = model_of(profile, budget=100 * MIB)
    found.correct({PLAIN: 1.0})  # before anything was asked for
    kept, narrow = PLAIN.pin(allocator="keep"), PLAIN.pin(precision="bf16")
    raw = model_of(profile, budget=100 * MIB)
    assert found.time(PLAIN).step == found.time(kept).step == pytest.approx(1.0)
    assert (found.time(PLAIN).origin, found.time(kept).origin) == ("timed", "calibrated")
    found.correct({kept: 2.0})  # a second one counts from the first
    assert found.time(PLAIN).step == found.time(kept).step == pytest.approx(2.0)
    found.correct({PLAIN: 3.0, kept: 1.0})  # the last one's error is that of the others
    assert found.time(PLAIN).step == pytest.approx(3.0)
    assert found.time(PLAIN).origin == found.time(kept).origin == "timed"
    ratio = raw.time(narrow).step / raw.time(PLAIN).step
    assert found.time(narrow).step == pytest.approx(ratio)
    assert found.startup(PLAIN.pin(compile=True)) == raw.startup(PLAIN.pin(compile=True))


def test_what_cannot_be_predicted_is_not_corrected(profile, captured, monkeypatch):
    monkeypatch.setattr(Device, "free_bytes", lambda _: 2**34)
    found = model_of(profile)
    found.correct({PLAIN: 1.0})
    assert found.time(PLAIN) is None


def test_what_compiling_took_is_what_it_takes(profile, captured):
    found, compiled = model_of(profile, budget=100 * MIB), PLAIN.pin(compile=True)
    alone = found.startup(compiled) / 3
    assert not found.has_compiled
    found.learn_startup(compiled, 7 * alone)
    later = model_of(profile, budget=100 * MIB)
    assert later.has_compiled
    assert later.startup(compiled) == pytest.approx(7 * alone)
    assert later.time(PLAIN).startup == 0.0
    absent = model_of(profile, budget=100 * MIB, rates=RATES)
    assert absent.startup(compiled) == pytest.approx(alone)


def test_what_was_told_stays_and_what_was_learned_is_kept_for_later(profile, captured, monkeypatch):
    kept = []
    monkeypatch.setattr(cost_model, "keep_calibration", kept.append)
    found = model_of(profile, budget=100 * MIB)
    before = found.time(PLAIN)
    found.keep()
    assert kept == []
    assert found.expected(PLAIN) == before.step
    found.learn(PLAIN, 7.0)
    assert found.time(PLAIN) is before
    # The same operations, asked for after the measurement: the same prediction.
    assert found.time(PLAIN.pin(allocator="keep")).step == before.step
    assert found.expected(PLAIN) > before.step
    found.keep()
    (calibration,) = kept
    assert calibration != cost_model.Calibration()
