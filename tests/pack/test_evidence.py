"""An engine whose gradients are wrong is struck, however small the rates are; rounding strikes nobody."""

import re

import pytest
import torch
from tests.pack.structures import STRUCTURES
from tests.pack.test_limits import chosen, made

import volano
from volano.pack import choice
from volano.pack.evidence import difference_of
from volano.pack.stacked import Lowered


class Halved(Lowered):
    """The gradient of one layer is half of what it is."""

    def _program(self, inputs, *, is_shared, training):
        program = super()._program(inputs, is_shared=is_shared, training=training)
        if not training:
            return program

        def wrong(inputs):
            outputs = program(inputs)
            return outputs._replace(gradients={**outputs.gradients, "3.weight": outputs.gradients["3.weight"] * 0.5})

        return wrong


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_wrong_gradient_under_a_warm_up(optimizer, monkeypatch):
    monkeypatch.setattr(choice, "_WORTH_TRACING", 0.0)
    monkeypatch.setattr(choice, "_COMPILE_SECONDS", 1e9)
    monkeypatch.setitem(choice.ENGINES, "lowered", Halved)
    classes = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    tasks = made(
        lambda _: None,
        schedule=volano.cosine(warmup=0.5),
        optimizer=lambda parameters: classes[optimizer](parameters, lr=1e-4),
    )
    pack = chosen(tasks, [])
    # The halved layer's, or where the norm is clipped any other's, for the norm is another too.
    assert re.match(
        r"the gradients of \d.(weight|bias) differ by \d+% from those alone", pack.choice.refused["lowered"]
    )


@pytest.mark.parametrize("name", ["mlp", "convolutional with AdamW", "MultiheadAttention"])
def test_engines_that_round_otherwise_pass(name, monkeypatch):
    # Keys' biases and biases before BatchNorm have a gradient of nought: what Adam makes of its rounding is no fault.
    monkeypatch.setattr(choice, "_WORTH_TRACING", 0.0)
    monkeypatch.setattr(choice, "_COMPILE_SECONDS", 1e9)
    pack = chosen(STRUCTURES[name].tasks(dtype=torch.float32), [])
    assert "lowered" not in pack.choice.refused, pack.choice
    assert "lowered" in pack.choice.seconds


def test_what_is_no_number_alone_is_compared_with_nothing():
    nan = {"weight": torch.full((2,), torch.nan, dtype=torch.float64)}
    fine = {"weight": torch.ones(2, dtype=torch.float64)}
    assert difference_of(fine, nan, "fp32") is None
    assert difference_of(nan, fine, "fp32") is not None
