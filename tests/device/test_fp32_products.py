"""Products of fp32 numbers are rounded as the plan says, and settings are put back."""

import os
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
    cudnn = torch.backends.cudnn.allow_tf32
    with fp32_products(precision):
        assert set(settings().values()) == {precision}
        assert torch.get_float32_matmul_precision() == (
            "high" if precision == "tf32" else "highest"
        )
        assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
        assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    assert settings() == before
    assert torch.get_float32_matmul_precision() == older
    assert torch.backends.cudnn.allow_tf32 == cudnn  # raises if the two interfaces disagree


MADE_BY = (
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.set_float32_matmul_precision('high')",
    "torch.backends.cudnn.allow_tf32 = False",
    "torch.set_float32_matmul_precision('high'); "
    "torch.backends.cuda.matmul.fp32_precision = 'ieee'",
)
# For each a process that has set nothing yet: the fork of one that has loaded torch and no more.
CODE = f"""
import os, sys, traceback
import torch
from volano.device import Device
from volano.device.fp32_products import _PLACES, _place
settings = lambda: [_place(name).fp32_precision for name in _PLACES]

def older():
    found = []
    for read in (torch.get_float32_matmul_precision, lambda: torch.backends.cudnn.allow_tf32):
        try:
            found.append(read())
        except RuntimeError:
            found.append(None)
    return found

def check(made_by):
    exec(made_by)
    read_before = older()
    before = settings()
    for precision, value in (("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")):
        with Device("cpu").settings(precision=precision):
            assert settings() == [value] * 6, settings()
        assert settings() == before, (settings(), before)
        # What raised before, because of a mix, may be read now.
        pairs = list(zip(older(), read_before, strict=True))
        assert all(now == then for now, then in pairs if then is not None), pairs

codes = []
for made_by in {MADE_BY!r}:
    child = os.fork()
    if child == 0:
        try:
            check(made_by)
        except BaseException:
            print(made_by, file=sys.stderr)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(codes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_settings_of_either_interface_stand_again():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.stdout.strip() == str([0] * len(MADE_BY)), done.stderr
