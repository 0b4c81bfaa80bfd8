"""Optimizers under a plan: fused where the class has it and the script chose nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from script.loops import plain_loop
from volano.script.apply import applied
from volano.script.optimizers import after_closure
from volano.script.plan import ScriptPlan

FUSED = ScriptPlan(fused=True)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "Adagrad"])
def test_torchs_optimizers_are_made_fused_and_undone(name):
    make = getattr(torch.optim, name)
    before = make.__init__
    with applied(FUSED) as result:
        optimizer = make((p for p in nn.Linear(2, 2).parameters()), lr=0.1)
        assert optimizer.param_groups[0]["fused"] is True
        assert len(optimizer.param_groups[0]["params"]) == 2
    assert result.deeds == (f"{name} fused",)
    assert not optimizer.param_groups[0]["fused"]
    assert make.__init__ is before


def test_the_same_losses_within_rounding():
    expected = plain_loop(epochs=1)
    with applied(FUSED):
        assert plain_loop(epochs=1) == pytest.approx(expected, rel=1e-3)


class Mine(torch.optim.AdamW):
    """A subclass may have another update."""


def test_what_the_script_chose_stands():
    parameters = list(nn.Linear(2, 2).parameters())
    with applied(FUSED) as result:
        foreach = torch.optim.AdamW(parameters, foreach=True)
        mine = Mine(parameters)
        other = torch.optim.RMSprop(parameters)
    assert foreach.param_groups[0]["fused"] is None
    assert mine.param_groups[0]["fused"] is None
    assert "fused" not in other.param_groups[0]
    assert not result.deeds
    assert result.notices == ("AdamW has an implementation that the script chose",)


def test_parameters_without_a_fused_update_are_made_plainly():
    whole_numbers = [nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)]
    with applied(FUSED) as result:
        optimizer = torch.optim.AdamW(whole_numbers)
    assert not optimizer.param_groups[0]["fused"]
    assert result.notices == ("AdamW has no fused update for torch.int64 on cpu",)


def test_groups_and_names_are_looked_into():
    net = nn.Linear(2, 2)
    with applied(FUSED) as result:
        groups = torch.optim.SGD([{"params": net.parameters(), "lr": 0.2}])
        named = torch.optim.SGD(net.named_parameters())
    assert [len(groups.param_groups[0]["params"]), groups.param_groups[0]["lr"]] == [2, 0.2]
    assert len(named.param_groups[0]["params"]) == 2
    assert result.deeds == ("SGD fused",)


def test_mistakes_of_the_script_are_told_as_ever():
    with applied(FUSED):
        with pytest.raises(ValueError, match="Invalid learning rate"):
            torch.optim.AdamW(nn.Linear(2, 2).parameters(), lr=-1.0)
        with pytest.raises(TypeError, match="unexpected keyword"):
            torch.optim.AdamW(nn.Linear(2, 2).parameters(), rate=1.0)


def test_checkpoints_are_those_of_the_script_alone_and_go_on_fused():
    net = nn.Linear(2, 2)

    def stepped():
        optimizer = torch.optim.AdamW({"w": net.weight, "b": net.bias}.values())
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        return optimizer

    alone = stepped().state_dict()
    with applied(FUSED) as result:
        fused = stepped()
        assert fused.state_dict()["param_groups"] == alone["param_groups"]
        for state in (alone, fused.state_dict()):
            fused.load_state_dict(state)
            assert fused.param_groups[0]["fused"] is True
            fused.step()
    assert result.deeds == ("AdamW fused",)
    fused.load_state_dict(alone)
    assert fused.param_groups[0]["fused"] is None


def test_what_follows_a_closure_is_called_after_it():
    said = ["before"]
    args, kwargs = after_closure((None,), {"closure": lambda: len(said)}, said.clear)
    assert (args, kwargs["closure"]()) == ((None,), 1)
    assert said == []
    assert after_closure((None, None), {}, said.clear) is None
