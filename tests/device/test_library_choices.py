import pytest
import torch

from volano.device import Device
from volano.device import library_choices as choices


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
