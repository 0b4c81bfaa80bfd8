import os
import threading

import pytest
import torch

from volano.device import Device
from volano.device import library_choices as choices
from volano.device.library_choices import are_denormals_flushed, denormals_flushed
from volano.device.torch_private import inductor_settings
from volano.errors import PlanError

CAN_FLUSH = torch.set_flush_denormal(False)


@pytest.fixture
def with_library(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)


def test_algorithms_are_timed_within_the_settings_of_a_plan_only():
    before = torch.backends.cudnn.benchmark
    for is_on in (True, False):
        with Device("cpu").settings(precision="fp32", conv_benchmark=is_on):
            assert torch.backends.cudnn.benchmark is is_on
        assert torch.backends.cudnn.benchmark is before
    with choices.convolutions_benchmarked(True), Device("cpu").settings(precision="fp32"):
        assert torch.backends.cudnn.benchmark  # whoever says nothing finds it as it was


@pytest.mark.usefixtures("with_library")
def test_only_devices_with_that_library_time_convolutions():
    assert choices.can_benchmark_convolutions("cuda")
    assert not choices.can_benchmark_convolutions("cpu")
    assert not choices.can_benchmark_convolutions("mps")
    torch.use_deterministic_algorithms(True)
    try:
        assert not choices.can_benchmark_convolutions("cuda")
    finally:
        torch.use_deterministic_algorithms(False)


def test_kernels_of_the_compiler_are_timed_where_it_has_several(monkeypatch):
    assert not Device("cpu").can_autotune_kernels
    monkeypatch.setattr(choices, "has_triton", lambda: True)
    assert choices.can_autotune_kernels("xpu")
    assert not choices.can_autotune_kernels("cpu")


def test_attention_needs_no_plan_for_each_shape():
    before = torch.backends.cuda.cudnn_sdp_enabled()
    with choices.attention_for_any_shape():
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled() is before
    with Device("cpu").attention_for_any_shape():
        assert torch.backends.cuda.cudnn_sdp_enabled() is before


def state():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
        getattr(inductor_settings(), "deterministic", None),
        os.environ.get(choices._WORKSPACES),
    )


class TestDeterministic:
    @pytest.mark.parametrize(("before", "within"), [(None, ":4096:8"), (":16:8", ":16:8"),
                                                    (":4096:2", ":4096:8")])  # fmt: skip
    def test_a_person_s_own_settings_are_put_back(self, monkeypatch, before, within):
        monkeypatch.delenv(choices._WORKSPACES, raising=False)
        if before is not None:
            monkeypatch.setenv(choices._WORKSPACES, before)
        torch.use_deterministic_algorithms(before is not None, warn_only=True)
        try:
            own = state()
            with choices.convolutions_benchmarked(True):
                with Device("cpu").settings(precision="fp32", deterministic=True):
                    assert state()[:4] == (True, False, False, False)
                    assert state()[-1] == within
                assert torch.backends.cudnn.benchmark
            assert state() == own
        finally:
            torch.use_deterministic_algorithms(False)

    def test_whoever_says_nothing_finds_it_as_it_was(self):
        before = state()
        with Device("cpu").settings(precision="fp32"), choices.repeatable_products(False):
            assert state() == before

    def test_an_operation_that_gives_other_bits_each_time_is_named(self):
        target = torch.zeros(4)
        rule = "must have an implementation that gives the same bits each time; got put_, which"
        with (
            pytest.raises(PlanError, match=rule) as error,
            Device("cpu").settings(precision="fp32", deterministic=True),
        ):
            target.put_(torch.tensor([1, 1]), torch.tensor([1.0, 2.0]))
        assert "leave `deterministic` out" in str(error.value)
        assert not torch.are_deterministic_algorithms_enabled()

    def test_other_errors_stay_what_they_are(self):
        said = (
            "Deterministic behavior was enabled, but this operation is not deterministic because "
            "it uses CuBLAS. You must set an environment variable: CUBLAS_WORKSPACE_CONFIG=:4096:8"
        )
        late = choices.why_not_repeatable(RuntimeError(said))
        assert "Set CUBLAS_WORKSPACE_CONFIG=:4096:8 in its environment" in str(late)
        with (
            pytest.raises(RuntimeError, match="size of tensor"),
            Device("cpu").settings(precision="fp32", deterministic=True),
        ):
            torch.zeros(2) + torch.zeros(3)


@pytest.mark.skipif(not CAN_FLUSH, reason="this processor cannot")
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


@pytest.mark.skipif(not CAN_FLUSH, reason="this processor cannot")
def test_normal_numbers_are_computed_as_ever():
    tiny = torch.finfo(torch.float32).tiny
    values = torch.tensor([tiny, -tiny, 1.0, 3e38, 1e-20])
    plain = values * values.flip(0) + values
    with denormals_flushed():
        assert torch.equal(values * values.flip(0) + values, plain)
