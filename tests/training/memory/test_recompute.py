"""Blocks that are computed again in the backward pass: less is kept, and nothing else changes."""

import contextlib
import copy
import functools
import pickle
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import volano
from conftest import assert_same, classification, experiment_records, make_mlp
from volano import Plan
from volano.device import Device
from volano.errors import PlanError
from volano.training import Session
from volano.training.checkpoints.checkpoint import list_checkpoints, load_checkpoint
from volano.training.memory.recompute import Recompute, blocks_of


class Transformer(nn.Module):
    """Two layers over 8 rows of 8 pixels, with dropout."""

    def __init__(self, num_layers=3):
        super().__init__()
        self.embed = nn.Linear(8, 16)
        layer = functools.partial(
            nn.TransformerEncoderLayer, 16, 2, 32, dropout=0.2, batch_first=True
        )
        self.layers = nn.ModuleList([layer() for _ in range(num_layers)])
        self.head = nn.Linear(16, 10)

    def forward(self, pixels):
        hidden = self.embed(pixels.view(-1, 8, 8))
        for layer in self.layers:
            hidden = layer(hidden)
        return self.head(hidden.mean(1))


class Residual(nn.Module):
    """Convolutions and BatchNorm around a skip."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(width, width, 3, padding=1),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return x + self.second(torch.relu(self.norm(self.first(x))))


class ResNet(nn.Module):
    """Two stages of residual blocks, each a sequence of its own."""

    def __init__(self, num_blocks=2):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.layer1 = nn.Sequential(*[Residual(4) for _ in range(num_blocks)])
        self.pool = nn.MaxPool2d(2)
        self.layer2 = nn.Sequential(*[Residual(4) for _ in range(num_blocks)])
        self.head = nn.Linear(4 * 16, 10)

    def forward(self, pixels):
        x = self.layer1(self.stem(pixels.view(-1, 1, 8, 8)))
        return self.head(self.layer2(self.pool(x)).flatten(1))


def stages():
    """A sequence of stages of different make."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Dropout(0.3), nn.Flatten()),
        nn.Linear(8 * 16, 10),
    )


class Steered(nn.Module):
    """Draws from every generator of the host, and scales by a buffer that it also changes."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 64)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        x = (
            torch.sin(self.linear(x))
            * (1 + random.random())
            * self.scale.clone()
            * float(np.random.rand())
        )
        x = torch.sin(nn.functional.dropout(x, 0.1))
        self.scale.mul_(1.01)
        return x


def steered():
    return nn.Sequential(Steered(), Steered(), nn.Linear(64, 10))


MODELS = {"transformer": Transformer, "resnet": ResNet, "stages": stages, "steered": steered}


def one_step(task, plan, *, steps=3):
    """Gradients of the last of some steps, buffers and losses."""
    notices = []
    session = Session(task, plan, on_notice=notices.append)
    losses = [
        session.step_once(batch, step).loss
        for step, batch in enumerate(session.feed.batches(session.order.keys(0, steps)))
    ]
    assert not notices
    gradients = {name: parameter.grad for name, parameter in session.model.named_parameters()}
    return (
        gradients,
        session.model.state_dict(),
        losses,
        torch.get_rng_state(),
        random.random(),
        np.random.rand(),
    )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("fields", "knobs"),
    [
        ({}, {}),
        ({"clip_norm": 0.1}, {"micro_batch": 12}),
        ({"ema_decay": 0.9}, {"precision": "bf16"}),
    ],
    ids=["plain", "clipped-micro-batches", "bf16"],
)
def test_bitwise_what_it_is_without(make_task, model, fields, knobs):
    task = make_task(model=MODELS[model], tolerance="precision", **fields)
    plan = Plan.baseline().pin(**knobs)
    assert_same(one_step(task, plan.pin(recompute="blocks")), one_step(task, plan))


@pytest.mark.parametrize("model", ["transformer", "resnet"])
def test_a_run_is_bitwise_the_same(make_task, quiet, tmp_path, model):
    task = make_task(model=MODELS[model], ema_decay=0.9)
    for name in ("none", "blocks"):
        plan = Plan.baseline().pin(recompute=name)
        volano.train(task, plan=plan, out=tmp_path / name, observer=quiet)
    states = [
        load_checkpoint(list_checkpoints(tmp_path / name / "checkpoints")[-1])[1]
        for name in ("none", "blocks")
    ]
    for state in states:
        del state["plan"]
    assert_same(*states)
    assert experiment_records(tmp_path / "none") == experiment_records(tmp_path / "blocks")


def bytes_kept(model, device, x, recompute=None):
    """Of distinct storages that the graph keeps, parameters aside."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def note(tensor):
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        if recompute is None:
            model(x)
        else:
            with recompute.applied():
                model(x)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("model", MODELS)
def test_less_is_kept(model):
    torch.manual_seed(0)
    net, device, x = MODELS[model](), Device("cpu"), torch.rand(32, 64)
    assert bytes_kept(net, device, x, Recompute(net, device)) < 0.6 * bytes_kept(net, device, x)


def test_blocks_are_found_by_structure():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(
                [nn.ModuleList([Residual(2), Transformer(1)]) for _ in range(2)]
            )

    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([ResNet(), ResNet()])

    assert blocks_of(Transformer()) == ["layers.0", "layers.1", "layers.2"]
    assert blocks_of(ResNet()) == ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]
    assert blocks_of(ResNet(1)) == ["layer1.0", "layer2.0"]
    assert blocks_of(stages()) == ["1", "2"]
    assert blocks_of(Pair()) == ["parts.0.0", "parts.0.1", "parts.1.0", "parts.1.1"]
    assert blocks_of(Nested()) == ["parts.0", "parts.1"]
    assert blocks_of(nn.Sequential(stages(), stages())) == ["0", "1"]
    assert blocks_of(make_mlp()) == []
    assert blocks_of(nn.Linear(2, 2)) == []


def test_without_blocks_it_says_so(make_task):
    notices = []
    Session(make_task(), Plan.baseline().pin(recompute="blocks"), on_notice=notices.append)
    assert notices == [
        "recompute=blocks has no effect: Sequential holds no lists or sequences of composite "
        "modules"
    ]


def test_the_model_is_the_users(make_task):
    session = Session(
        make_task(model=ResNet), Plan.baseline().pin(recompute="blocks"), on_notice=pytest.fail
    )
    keys = set(session.model.state_dict())

    def objective(model, batch):
        assert "forward" in model.layer1[0].__dict__
        return classification(model, batch)

    session.step_once._loss = functools.partial(objective, session.model)
    session.step_once(next(iter(session.feed.batches(session.order.keys(0, 1)))), 0)
    assert not any("forward" in module.__dict__ for module in session.model.modules())
    assert set(session.model.state_dict()) == keys == set(ResNet().state_dict())
    pickle.dumps(session.model)
    copy.deepcopy(session.model)


def test_an_instances_own_forward_is_put_back():
    model = nn.Sequential(Steered(), Steered())
    own = model[0].forward = lambda x: x * 3
    with Recompute(model, Device("cpu")).applied():
        assert model[0].forward is not own
        assert model(torch.ones(1, 64)).shape == (1, 64)
    assert model[0].forward is own


def test_a_block_that_changes_its_input_is_refused():
    class InPlace(Steered):
        def forward(self, x):
            return self.linear(x.mul_(2))

    model = nn.Sequential(nn.Linear(64, 64), InPlace(), InPlace())
    with (
        Recompute(model, Device("cpu")).applied(),
        pytest.raises(PlanError, match="leave its inputs unchanged; got 1 .InPlace."),
    ):
        model(torch.ones(1, 64))


def test_a_large_buffer_that_changes_later_is_refused():
    class Late(Steered):
        calls = 0

        def __init__(self):
            super().__init__()
            # Of 80 kB: more than is copied each time.
            self.register_buffer("table", torch.ones(20_000))

        def forward(self, x):
            self.calls += 1
            if self.calls > 1:
                self.table.mul_(2)
            return self.linear(x) * self.table[0].clone()

    model = nn.Sequential(Late(), Late())
    recompute = Recompute(model, Device("cpu"))
    with recompute.applied():
        model(torch.ones(1, 64)).sum().backward()
        with pytest.raises(PlanError, match="same at each step; got 0, which now changes table"):
            model(torch.ones(1, 64))


def test_statistics_that_were_frozen_may_move_later(make_task):
    def run(recompute):
        session = Session(
            make_task(model=ResNet),
            Plan.baseline().pin(recompute=recompute),
            on_notice=lambda _: None,
        )
        for step, batch in enumerate(session.feed.batches(session.order.keys(0, 4))):
            for module in session.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.train(step >= 2)
            session.step_once(batch, step)
        return session.model.state_dict()

    assert_same(run("blocks"), run("none"))


@pytest.mark.slow
@pytest.mark.compiles
# Torch's compiler uses what torch deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("model", ["transformer", "resnet"])
def test_under_the_compiler_it_differs_by_rounding(make_task, model):
    # Dropout's draws and BatchNorm's statistics are the same; what is fused with what is not.
    task = make_task(model=MODELS[model], tolerance="precision")
    plan = Plan.baseline().pin(compile=True)
    torch.compiler.reset()
    results = [one_step(task, plan.pin(recompute=name)) for name in ("blocks", "none")]
    for got, expected in zip(results[0][:3], results[1][:3], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_a_gradient_in_the_objective_computes_blocks_more_than_once(make_task):
    """The penalty of Gulrajani et al. 2017: the backward pass is differentiated too."""

    def objective(model, batch):
        inputs = batch[0].clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(inputs), batch[1])
        (gradient,) = torch.autograd.grad(loss, inputs, create_graph=True)
        return loss + gradient.square().sum()

    def model():
        blocks = [
            nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Dropout(0.2), nn.Linear(32, 64))
            for _ in range(2)
        ]
        return nn.Sequential(nn.Sequential(*blocks), nn.Linear(64, 10))

    weights = []
    for recompute in ("none", "blocks"):
        task = make_task(model=model, objective=objective)
        session = Session(task, Plan.baseline().pin(recompute=recompute), on_notice=lambda _: None)
        for step, batch in enumerate(session.feed.batches(session.order.keys(0, 3))):
            session.step_once(batch, step)
        weights.append(session.model.state_dict())
    assert_same(*weights)


class Seldom(nn.Module):
    """A block that writes its statistics at every third step, and says so or not."""

    def __init__(self, *, behind):
        super().__init__()
        self.first, self.second, self.behind = nn.Linear(64, 32), nn.Linear(32, 64), behind
        self.register_buffer("passes_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(64))

    def forward(self, x):
        centred = x - self.mean
        self.passes_seen += 1
        if self.passes_seen % 3 == 0:
            mean = self.mean.data if self.behind else self.mean
            mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return x + self.second(torch.relu(self.first(centred.clone())))


@pytest.mark.parametrize("behind", [False, True])
def test_statistics_that_change_at_later_steps_only(make_task, behind):
    def model():
        return nn.Sequential(
            nn.Sequential(*[Seldom(behind=behind) for _ in range(2)]), nn.Linear(64, 10)
        )

    states = []
    for recompute in ("none", "blocks"):
        session = Session(
            make_task(model=model),
            Plan.baseline().pin(recompute=recompute),
            on_notice=lambda _: None,
        )
        for step, batch in enumerate(session.feed.batches(session.order.keys(0, 7))):
            session.step_once(batch, step)
        states.append(session.model.state_dict())
    assert_same(*states)


class TestGeneratorsThatArePutBack:
    """Putting Python's and NumPy's states back takes longer than a small block."""

    def passes(self, monkeypatch, drawing, number=3):
        class Drawing(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(4, 4)

            def forward(self, x):
                return self.linear(x) * drawing(x)

        model = nn.Sequential(Drawing(), Drawing())
        device, counts = Device("cpu"), []
        original = Device.states_again
        monkeypatch.setattr(
            Device,
            "states_again",
            lambda self, states: (counts.append(1), original(self, states))[1],
        )
        recompute, found = Recompute(model, device), []
        for self.turn in range(number):
            counts.clear()
            gradients = []
            for is_on in (False, True):
                torch.manual_seed(1)
                random.seed(1)
                with recompute.applied() if is_on else contextlib.nullcontext():
                    loss = model(torch.ones(2, 4)).square().sum()
                gradients.append(torch.autograd.grad(loss, list(model.parameters())))
            assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
            found.append(len(counts))
        return found

    def test_the_seeded_one_alone_if_a_pass_drew_from_no_other(self, monkeypatch):
        assert self.passes(monkeypatch, lambda x: torch.rand_like(x)) == [0, 0, 0]

    def test_all_if_it_drew_elsewhere(self, monkeypatch):
        found = self.passes(monkeypatch, lambda x: x * random.random())
        assert min(found) > 0

    @pytest.mark.parametrize("draw", [torch.rand_like, lambda x: x * random.random()])
    def test_they_stand_again_where_a_block_begins_to_draw_later(self, monkeypatch, draw):
        self.passes(monkeypatch, lambda x: draw(x) if self.turn else x.detach())
