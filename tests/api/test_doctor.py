"""The doctor's verdict, for machines of several kinds."""

import dataclasses

import pytest

from volano.api import doctor
from volano.device import Device, Limits, describe_machine

HERE = describe_machine(Device("cpu"))
LIMITS = Limits(matmul_fp32=6e10, matmul_bf16=1e9, memory_copy=1.5e10, host_to_device=None)


@pytest.mark.parametrize(
    ("changes", "rate", "load", "said"),
    [
        ({}, 1e9, 0.0, "bf16 is 60.0 times slower than fp32"),
        ({}, 1.2e11, 0.0, "bf16 multiplies 2.0 times as fast"),
        ({"num_threads": 1}, 1e9, 0.0, "torch uses 1 of 4 cores: unset OMP_NUM_THREADS"),
        ({}, 1e9, 3.0, "Other programs are busy (load 3.0 on 4 cores)"),
        ({}, 1e9, 3.0, "set GOMP_SPINCOUNT=10000 before Python starts"),
        ({"num_accelerators": 1}, 1e9, 0.0, "leave out `device`"),
    ],
)
def test_what_is_slow_and_what_to_set(changes, rate, load, said, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    facts = {"device": "cpu", "num_cores": 4, "num_threads": 4, "num_accelerators": 0, **changes}
    machine = dataclasses.replace(HERE, **facts)
    limits = dataclasses.replace(LIMITS, matmul_bf16=rate)
    sentences = list(doctor._verdict(machine, limits, load))
    assert any(said in sentence for sentence in sentences)
    assert ("OMP_NUM_THREADS" in " ".join(sentences)) == ("num_threads" in changes)
