"""Products of fp32 numbers are rounded as the plan says, and settings are put back."""

import subprocess
import sys

import pytest
import torch

from volano.device.fp32_products import _PLACES, _place, fp32_products


def settings():
    return {name: _place(name).fp32_precision for name in _PLACES}


@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_all_places_are_set_and_put_back(precision):
    before, older = settings(), torch.get_float32_matmul_precision()
    with fp32_products(precision):
        assert set(settings().values()) == {precision}
        assert torch.get_float32_matmul_precision() == (
            "high" if precision == "tf32" else "highest"
        )
        assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
        assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    assert settings() == before
    assert torch.get_float32_matmul_precision() == older


@pytest.mark.parametrize(
    "made_by",
    [
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
        "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
        "torch.backends.fp32_precision = 'tf32'",
        "torch.set_float32_matmul_precision('high')",
        "torch.backends.cudnn.allow_tf32 = False",
        "torch.set_float32_matmul_precision('high'); "
        "torch.backends.cuda.matmul.fp32_precision = 'ieee'",
    ],
)
def test_settings_of_either_interface_stand_again(made_by):
    code = f"""
import torch
{made_by}
from volano.device import Device
from volano.device.fp32_products import _PLACES, _place
settings = lambda: [_place(name).fp32_precision for name in _PLACES]
before = settings()
for precision, value in (("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")):
    with Device("cpu").settings(precision=precision):
        assert settings() == [value] * 6, settings()
    assert settings() == before, (settings(), before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
