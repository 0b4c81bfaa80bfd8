"""Minutes rather than seconds: python -m pytest -m slow"""

import json

import pytest
import torch

import volano
from conftest import FASHION_MNIST
from volano.plan import Plan

pytestmark = pytest.mark.slow


@pytest.mark.compiles
# Torch's compiler uses what torch deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_plan_learns_the_same(make_task, quiet, tmp_path):
    eager = volano.train(make_task(), plan=Plan.baseline(), out=tmp_path / "1", observer=quiet)
    compiled = volano.train(
        make_task(), plan=Plan.baseline().pin(compile=True), out=tmp_path / "2", observer=quiet
    )
    for got, expected in zip(compiled.model.parameters(), eager.model.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(
    not FASHION_MNIST.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)
def test_one_epoch_of_fashion_mnist(quiet, tmp_path):
    run = volano.train(
        "image",
        FASHION_MNIST,
        epochs=1,
        seed=0,
        out=tmp_path / "run",
        observer=quiet,
        pins={"precision": "bf16", "threads": 2},
    )
    assert run.metrics["test_accuracy"] > 0.89
    assert json.loads((run.path / "run.json").read_text())["metrics"]["num_test"] == 10000
