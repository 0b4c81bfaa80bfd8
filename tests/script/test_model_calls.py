"""The outermost call of a model under a plan."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from script.loops import Net, plain_loop
from volano.script.apply import applied
from volano.script.plan import ScriptPlan
from volano.script.watch.float64 import computed_in_float64

BF16, LAST = ScriptPlan(precision="bf16"), ScriptPlan(memory_format="channels_last")


def test_channels_last_holds_inside_and_losses_differ_by_rounding():
    expected, net = plain_loop(epochs=1, make=torch.optim.SGD), Net()
    torch.manual_seed(3)
    net = Net()
    with applied(LAST) as result:
        torch.manual_seed(3)
        losses = plain_loop(epochs=1, make=torch.optim.SGD, net=None)
        net(torch.randn(4, 1, 8, 8))
    assert net.seen[-1] == (torch.float32, True)
    assert losses == pytest.approx(expected, rel=1e-4)
    assert result.deeds == ("Net in channels_last",)


def test_models_inside_of_transforms_and_under_other_parameters_are_left():
    net, image = nn.Conv2d(1, 2, 3), torch.randn(2, 1, 8, 8)
    own = {name: value.detach() for name, value in net.named_parameters()}

    def loss(values):
        return torch.func.functional_call(net, values, (image,)).sum()

    expected = torch.func.grad(loss)(own)
    with applied(LAST) as result:
        assert torch.equal(torch.func.grad(loss)(own)["weight"], expected["weight"])
        loss({name: value.requires_grad_() for name, value in own.items()}).backward()
        torch.func.vmap(net)(image)
        assert not result.deeds
        net(image)
    assert result.deeds == ("Conv2d in channels_last",)


def test_channels_last_is_saved_as_ever(tmp_path):
    net = Net()
    with applied(LAST):
        net(torch.randn(4, 1, 8, 8))
        safetensors.torch.save_file(net.state_dict(), tmp_path / "net.safetensors")
    saved = safetensors.torch.load_file(tmp_path / "net.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in net.state_dict().items())
    with pytest.raises(ValueError, match="contiguous"):
        safetensors.torch.save_file(net.state_dict(), tmp_path / "net.safetensors")


def test_half_precision_inside_and_wide_outputs():
    net, images = Net(), torch.randn(4, 1, 8, 8)
    with applied(BF16) as result:
        out = net(images)
        assert out.dtype == torch.float32
        out.sum().backward()
        net.eval()
        net(images)
        net.train()
        with torch.no_grad():
            net(images)
    assert [kind for kind, _ in net.seen] == [torch.bfloat16, torch.float32, torch.float32]
    assert all(parameter.grad.dtype == torch.float32 for parameter in net.parameters())
    assert result.deeds == ("Net in bf16",)


class Wrapped(dict):
    """An output as transformers makes it: a mapping of its own class."""


class Outer(nn.Module):
    """A model whose output is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        hidden = self.inner(x)
        return Wrapped(hidden=hidden, parts=(hidden, "text"))


@dataclasses.dataclass(frozen=True)
class Fields:
    hidden: torch.Tensor
    name: str


class Named(Outer):
    def forward(self, x):
        return Fields(self.inner(x), "text")


def test_the_fields_of_a_dataclass_are_widened():
    with applied(BF16):
        out = Named()(torch.randn(2, 4))
    assert isinstance(out, Fields)
    assert (out.hidden.dtype, out.name) == (torch.float32, "text")


def test_outputs_keep_their_class_and_only_the_outermost_is_widened():
    inside = []
    outer = Outer()
    outer.inner.register_forward_hook(lambda *parts: inside.append(parts[-1].dtype))
    with applied(BF16):
        out = outer(torch.randn(2, 4))
    assert inside == [torch.bfloat16]
    assert type(out) is Wrapped
    assert out["hidden"].dtype == out["parts"][0].dtype == torch.float32
    assert out["parts"][1] == "text"


def test_what_the_script_does_itself_is_left():
    net, images = Net(), torch.randn(4, 1, 8, 8)
    with applied(BF16) as result, torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(images).dtype == torch.bfloat16
    assert result.notices == ("Net has the script's own autocast",)
    narrow = Net().to(torch.bfloat16)
    with applied(BF16) as result:
        assert narrow(images.to(torch.bfloat16)).dtype == torch.bfloat16
    assert "another type than fp32" in result.notices[0]
    assert not result.deeds


def test_losses_and_teachers_are_no_models():
    teacher = Net().requires_grad_(False)
    with applied(BF16) as result:
        nn.CrossEntropyLoss()(torch.randn(2, 3, requires_grad=True), torch.tensor([0, 1]))
        teacher(torch.randn(4, 1, 8, 8))
    assert teacher.seen[0][0] == torch.float32
    assert not result.deeds


def test_a_lazy_model_is_taken_when_it_has_its_shapes():
    net = nn.Sequential(nn.LazyConv2d(4, 3))
    images = torch.randn(2, 1, 8, 8)
    with applied(LAST) as result:
        net(images)
        assert net(images).is_contiguous(memory_format=torch.channels_last)
    assert result.deeds == ("Sequential in channels_last",)


def test_an_error_in_the_model_leaves_the_hook_in_order():
    net = Net()
    with applied(BF16):
        with pytest.raises(RuntimeError):
            net(torch.randn(4, 2, 8, 8))
        assert net(torch.randn(4, 1, 8, 8)).dtype == torch.float32
    assert net.seen[-1][0] == torch.bfloat16


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the compiler loads
@pytest.mark.compiles
def test_the_root_is_compiled_and_a_compiled_one_is_left():
    def made():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))

    x, plain = torch.randn(3, 4), made()
    expected = plain(x)
    net, own = made(), torch.compile(made(), backend="eager")
    with applied(ScriptPlan(compile="default", memory_format="channels_last")) as result:
        assert torch.allclose(net(x), expected, atol=1e-6)
        assert torch.allclose(own(x), expected, atol=1e-6)
    assert "Sequential compiled" in result.deeds
    assert "OptimizedModule is compiled by the script" in result.notices


class Checkpointed(nn.Module):
    """A model whose part is computed again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, images):
        return checkpoint(self.net, images, use_reentrant=False)


@pytest.mark.parametrize("is_whole", [False, True])
def test_what_is_computed_again_is_as_it_was_and_no_other_model(is_whole):
    def gradients(context):
        torch.manual_seed(0)
        model, images = Checkpointed(), torch.randn(4, 1, 8, 8)
        with context as result:
            found = (
                checkpoint(model.net, images, use_reentrant=False) if is_whole else model(images)
            )
            found.sum().backward()
        return [p.grad for p in model.parameters()], [kind for kind, _ in model.net.seen], result

    wanted, _, _ = gradients(torch.autocast("cpu", dtype=torch.bfloat16))
    found, inside, result = gradients(applied(BF16))
    assert inside == [torch.bfloat16] * 2
    assert all(map(torch.equal, found, wanted))
    assert (result.deeds, result.notices) == (
        (f"{'Net' if is_whole else 'Checkpointed'} in bf16",),
        (),
    )
    with computed_in_float64():
        assert gradients(contextlib.nullcontext())[1] == [torch.float64] * 2
