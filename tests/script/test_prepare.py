"""A loop of one's own under a plan: the same numbers, the same objects."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

import volano
from volano.errors import RunError, UsageError
from volano.script.plan import ScriptPlan

CPU = {"device": "cpu"}


def loss_of(model, batch):
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)


def parts(count=48, norm=False):
    torch.manual_seed(1)
    middle = nn.BatchNorm1d(8) if norm else nn.ReLU()
    net = nn.Sequential(nn.Linear(4, 8), middle, nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(
        [{"params": net[0].parameters(), "lr": 0.02}, {"params": net[2].parameters()}], lr=0.01
    )
    if norm:
        optimizer.add_param_group({"params": middle.parameters()})
    data = TensorDataset(torch.randn(count, 4), torch.randint(3, (count,)))
    return net, optimizer, DataLoader(data, batch_size=4, shuffle=True)


def plain(epochs=2):
    net, optimizer, loader = parts()
    losses = []
    for _ in range(epochs):
        for batch in loader:
            optimizer.zero_grad()
            loss = loss_of(net, batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def prepared(plan, epochs=2, loss=loss_of, **more):
    net, optimizer, loader = parts()
    with volano.prepare(net, optimizer, loader, loss=loss, plan=plan, **CPU, **more) as session:
        assert len(session) == len(loader)
        return [session.step(batch).item() for _ in range(epochs) for batch in session]


def test_the_same_losses_as_a_loop_by_hand():
    expected = plain()
    assert prepared(ScriptPlan()) == expected
    assert prepared(ScriptPlan(num_workers=1, persistent_workers=True)) == expected
    assert prepared(ScriptPlan(fused=True)) == pytest.approx(expected, rel=1e-5)
    assert prepared(ScriptPlan(precision="bf16"))[0] == pytest.approx(expected[0], rel=2**-6)


def test_settings_are_put_back_and_objects_stay():
    net, optimizer, loader = parts()
    session = volano.prepare(
        net, optimizer, loader, loss=loss_of, plan=ScriptPlan(threads=2, num_workers=1), **CPU
    )
    assert torch.get_num_threads() == 2
    before = [p.clone() for p in net.parameters()]
    session.step(next(iter(session)))
    assert not torch.equal(before[0], next(net.parameters()))
    session.close()
    assert torch.get_num_threads() == 1
    assert loader.num_workers == 0


def scarce(most):
    """A loss for which there is no room with more examples, where its own model is trained."""
    owners = []

    def loss(model, batch):
        owners.append(model)
        if model is owners[0] and len(batch[0]) > most:
            raise torch.OutOfMemoryError("no room for so many")
        return loss_of(model, batch)

    return loss


def test_a_step_that_runs_out_of_memory_is_repeated_in_parts():
    said = []
    losses = prepared(ScriptPlan(), loss=scarce(1), on_notice=said.append)
    assert losses == pytest.approx(plain(), rel=1e-4)
    assert [line.split("parts of ")[1].split()[0] for line in said] == ["2", "1"]


def test_a_batch_that_is_not_the_sum_of_its_parts_stays_whole():
    net, optimizer, loader = parts(norm=True)
    said = []
    with volano.prepare(
        net, optimizer, loader, loss=scarce(3), plan=ScriptPlan(), on_notice=said.append, **CPU
    ) as session:
        before = net[1].running_mean.clone()
        with pytest.raises(RunError, match="must fit into the memory"):
            session.step(next(iter(session)))
        assert torch.equal(net[1].running_mean, before)
    assert "the batch stays whole" in said[0]


def test_a_checkpoint_goes_on_where_it_was():
    expected = plain(epochs=3)
    net, optimizer, loader = parts()
    first = volano.prepare(net, optimizer, loader, loss=loss_of, plan=ScriptPlan(), **CPU)
    losses = [first.step(batch).item() for batch in first]
    saved = first.state_dict()
    first.close()
    torch.manual_seed(99)
    net, optimizer, _ = parts()
    second = volano.prepare(net, optimizer, loader, loss=loss_of, plan=ScriptPlan(), **CPU)
    second.load_state_dict(saved)
    losses += [second.step(batch).item() for _ in range(2) for batch in second]
    second.close()
    assert losses == expected
    assert second.num_steps == 36


def test_the_plan_is_sought_on_copies(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    net, optimizer, loader = parts()
    before = [p.clone() for p in net.parameters()]
    state = torch.get_rng_state()
    plan = volano.advise(net, optimizer, loader, loss=loss_of, **CPU)
    assert isinstance(plan, volano.ScriptPlan)
    assert plan.fused  # one of the choices that need no measuring
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert not optimizer.state


def test_a_loader_of_a_stream_needs_a_plan_of_its_own():
    net, optimizer, _ = parts()

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(range(3))

    with pytest.raises(UsageError, match="map-style"):
        volano.advise(net, optimizer, DataLoader(Stream()), loss=loss_of)


def test_a_model_that_cannot_be_copied_needs_a_plan_of_its_own():
    net, optimizer, loader = parts()
    prune.l1_unstructured(net[0], "weight", 0.3)
    net(torch.zeros(1, 4))  # whose weight is computed now
    with pytest.raises(UsageError, match="which copy.deepcopy must take; got RuntimeError.*`plan`"):
        volano.prepare(net, optimizer, loader, loss=loss_of, **CPU)
