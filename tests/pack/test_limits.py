"""What no common program takes is refused, and said; the loop trains it as it is trained alone."""

import pytest
from tests.pack.structures import Structure, plain_mlp, sgd
from tests.pack.test_equality import alone, deviation, packed, results
from torch import nn

from volano.errors import UsageError
from volano.pack import Member, Pack, choice

TOGETHER = ["mapped", "lowered"]


def made(change, **fields):
    """Tasks of a small net after ``change(model)``."""

    def model(config):
        net = plain_mlp(config)
        return change(net) or net

    return Structure(model=model, optimizer=sgd).tasks(**fields)


def refused(tasks, engine, words):
    """The engine says why it does not take them, and a pack that may choose takes the loop."""
    with pytest.raises(UsageError, match=f"Engine {engine} takes these tasks; got .*{words}"):
        packed(tasks, 2, engine)


def hook_on_module(model):
    model[3].register_full_backward_hook(lambda _, given, __: tuple(None if g is None else g * 0.5 for g in given))


def hook_on_parameter(model):
    model[1].weight.register_hook(lambda gradient: gradient * 0.1)


def hook_after_gradient(model):
    def shrink(parameter):
        parameter.grad.mul_(0.1)

    model[1].weight.register_post_accumulate_grad_hook(shrink)


def hook_forward(model):
    model[1].register_forward_hook(lambda _, __, output: output * 0.5)


class Scaling(nn.Module):
    """A hook on what a layer gives, where there are gradients."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        hidden = self.inner[2](self.inner[1](self.inner[0](images)))
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: gradient * 0.1)
        return self.inner[3](hidden)


HOOKS = {
    "backward": (hook_on_module, "hooks on module '3'"),
    "parameter": (hook_on_parameter, "hooks on parameter '1.weight'"),
    "after the gradient": (hook_after_gradient, "hooks on parameter '1.weight'"),
    "forward": (hook_forward, "hooks on module '1'"),
    "activation": (Scaling, "hooks on tensors of the forward pass"),
}


@pytest.mark.parametrize("engine", TOGETHER)
@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_are_refused(kind, engine):
    change, words = HOOKS[kind]
    refused(made(change), engine, words)


@pytest.mark.parametrize("kind", HOOKS)
def test_a_pack_of_models_with_hooks_learns_what_they_learn_alone(kind, monkeypatch):
    monkeypatch.setattr(choice, "_WORTH_TRACING", 0.0)
    change, words = HOOKS[kind]
    tasks, heard = made(change), []
    pack = Pack(
        [Member(number=n, task=task) for n, task in enumerate(tasks)],
        device="cpu", num_steps=10_000, on_notice=heard.append,
    )  # fmt: skip
    assert pack.engine == "loop"
    assert len([text for text in heard if words in text]) == 1
    pack.advance(dict.fromkeys(pack.numbers, 5))
    assert max(deviation(mine, alone(task, 5)) for mine, task in zip(results(pack), tasks, strict=True)) == 0.0


def test_hooks_on_all_modules_are_refused():
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        refused(made(lambda _: None), "lowered", "hooks on all modules")
    finally:
        handle.remove()
