"""What no common program takes is refused, and said; the loop trains it as it is trained alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize, prune

import volano
from packing.comparing import alone, deviation, packed, results
from packing.structures import Structure, digits, plain_mlp, sgd
from volano.errors import UsageError
from volano.packing import Member, Pack, choose_engine
from volano.packing.engines import stacked
from volano.packing.program import program


def made(change, **fields):
    """Tasks of a small net after ``change(model)``."""

    def model(config):
        net = plain_mlp(config)
        return change(net) or net

    return Structure(model=model, optimizer=sgd).tasks(**fields)


def refused(tasks, words):
    """The traced engine says why it does not take them."""
    with pytest.raises(
        UsageError, match=f"Engine lowered does not take these tasks; got .*{words}"
    ):
        packed(tasks, 2, "lowered")


def hook_on_module(model):
    model[3].register_full_backward_hook(
        lambda _, given, __: tuple(None if g is None else g * 0.5 for g in given)
    )


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


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_are_refused(kind):
    change, words = HOOKS[kind]
    refused(made(change), words)


@pytest.mark.parametrize("kind", HOOKS)
def test_a_pack_of_models_with_hooks_learns_what_they_learn_alone(kind, monkeypatch):
    monkeypatch.setattr(choose_engine, "_WORTH_TRACING", 0.0)
    change, words = HOOKS[kind]
    tasks, heard = made(change), []
    pack = Pack(
        [Member(number=n, task=task) for n, task in enumerate(tasks)],
        device="cpu", num_steps=10_000, on_notice=heard.append,
    )  # fmt: skip
    assert pack.engine == "loop"
    assert len([text for text in heard if words in text]) == 1
    pack.advance(dict.fromkeys(pack.numbers, 5))
    assert (
        max(
            deviation(mine, alone(task, 5)) for mine, task in zip(results(pack), tasks, strict=True)
        )
        == 0.0
    )


def test_hooks_on_all_modules_are_refused():
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        refused(made(lambda _: None), "hooks on all modules")
    finally:
        handle.remove()


# ---- batches


def chosen(tasks, heard, states=None):
    """A pack that chooses its engine."""
    members = [
        Member(number=n, task=task, state=(states or {}).get(n)) for n, task in enumerate(tasks)
    ]
    return Pack(members, device="cpu", num_steps=10_000, on_notice=heard.append)


def with_positions(examples):
    """Beside images and classes the place of each example in its batch, as numbers of Python's."""
    images, classes = (torch.stack(column) for column in zip(*examples, strict=True))
    return {
        "images": images,
        "classes": classes,
        "sums": [round(float(image.sum())) for image in images],
    }


def weighted(model, batch):
    """A loss, or in evaluation a metric, of what is no tensor."""
    logits = model(batch["images"])
    losses = F.cross_entropy(logits, batch["classes"], reduction="none")
    weights = torch.tensor([1.0 + n % 2 for n in batch["sums"]], dtype=losses.dtype)
    if model.training:
        return (losses * weights).mean()
    return volano.Loss(
        total=losses.sum(), weight=len(losses), metrics={"weighted": (losses * weights).mean()}
    )


def weighted_in_evaluation(model, batch):
    """Reads what is no tensor in evaluation only."""
    if model.training:
        return F.cross_entropy(model(batch["images"]), batch["classes"])
    return weighted(model, batch)


def test_batches_with_leaves_that_are_no_tensors_are_refused():
    tasks = made(lambda _: None, objective=weighted_in_evaluation, collate=with_positions)
    refused(tasks, r"batches with a leaf that is no tensor \(int\)")


def test_the_loop_trains_and_evaluates_on_leaves_that_are_no_tensors(slow_loop):
    tasks, heard = (
        made(lambda _: None, objective=weighted_in_evaluation, collate=with_positions),
        [],
    )
    pack = chosen(tasks, heard)
    pack.advance(dict.fromkeys(pack.numbers, 6))
    assert pack.engine == "loop"
    assert len([text for text in heard if "a leaf that is no tensor" in text]) == 1
    for mine, task in zip(results(pack), tasks, strict=True):
        assert mine["metrics"] == alone(task, 6)["metrics"]


def test_an_evaluation_of_leaves_that_are_no_tensors_is_made_one_by_one():
    class Positioned(torch.utils.data.Dataset):
        """Only the held out examples say where they stand."""

        def __init__(self, inner):
            self.inner = inner

        def __len__(self):
            return len(self.inner)

        def __getitem__(self, index):
            return (*self.inner[index], float(index))

    def collate(examples):
        columns = list(zip(*examples, strict=True))
        tensors = {"images": torch.stack(columns[0]), "classes": torch.stack(columns[1])}
        return (
            tensors
            if len(columns) == 2
            else {**tensors, "sums": [int(place) // 3 for place in columns[2]]}
        )

    tasks = made(
        lambda _: None,
        objective=weighted_in_evaluation,
        collate=collate,
        valid=Positioned(digits(torch.float64)[1]),
    )
    for mine, task in zip(packed(tasks, 3, "lowered"), tasks, strict=True):
        assert mine["metrics"] == pytest.approx(alone(task, 3)["metrics"], rel=1e-6)


def test_members_at_different_sizes_of_batches_go_on_one_by_one(slow_loop):
    tasks, heard = made(lambda _: None, batch_size=10, last_batch="keep"), []
    ahead = Pack([Member(number=0, task=tasks[0])], device="cpu", engine="loop")
    ahead.advance({0: 3})
    # The first meets its last batch, of 6, before the others do.
    pack = chosen(tasks, heard, states=ahead.states())
    assert pack.engine == "lowered"
    pack.advance({0: 13, 1: 10, 2: 10, 3: 10})
    assert (pack.engine, pack.steps) == ("loop", {0: 13, 1: 10, 2: 10, 3: 10})
    assert len([text for text in heard if "batches of several shapes at one step" in text]) == 1
    for n, mine in enumerate(results(pack)):
        assert deviation(mine, alone(tasks[n], pack.steps[n])) <= 1e-10


def test_an_engine_that_was_asked_for_says_that_it_takes_no_batches_of_several_sizes():
    tasks = [
        task
        for seed in range(2)
        for task in made(lambda _: None, data_seed=seed, collate=of_some_length)[:1]
    ]
    refused(tasks, "batches of several shapes at one step")


def of_some_length(examples):
    """The first rows of the images: 2 to 7 of them."""
    images, classes = (torch.stack(column) for column in zip(*examples, strict=True))
    rows = 2 + int(images.sum() * 16) % 6
    return images[:, :, :rows].mean(2, keepdim=True).expand(-1, -1, rows, -1).contiguous(), classes


def mean_of_rows(config):
    return nn.Sequential(nn.Flatten(2), nn.AdaptiveAvgPool1d(8), nn.Flatten(), nn.Linear(8, 10))


def test_batches_of_too_many_lengths_are_trained_one_by_one(monkeypatch, slow_loop):
    monkeypatch.setattr(stacked, "_MOST_SHAPES", 4)
    tasks, heard = Structure(model=mean_of_rows, optimizer=sgd).tasks(collate=of_some_length), []
    pack = chosen(tasks, heard)
    pack.advance(dict.fromkeys(pack.numbers, 24))
    assert pack.engine == "loop"
    assert len([text for text in heard if "batches of more than 4 shapes" in text]) == 1
    for mine, task in zip(results(pack), tasks, strict=True):
        assert deviation(mine, alone(task, 24)) <= 1e-10


def test_batches_that_run_uncompiled_are_said(monkeypatch):
    monkeypatch.setattr(program.Graph, "compile", lambda graph, *_: graph)
    data = volano.Arrays((torch.rand(40, 64), torch.randint(10, (40,))))
    tasks = Structure(model=lambda _: nn.Linear(64, 10), optimizer=sgd).tasks(
        data=data, valid=data, batch_size=16, last_batch="keep", dtype=torch.float32
    )
    pack = Pack([Member(number=n, task=t) for n, t in enumerate(tasks)], engine="compiled")
    pack.advance(dict.fromkeys(pack.numbers, 2))
    assert "other batches" not in pack.refused
    pack.advance(dict.fromkeys(pack.numbers, 3))  # the last of the epoch has eight examples
    assert pack.refused["other batches"] == "only those of 16 examples run the compiled program"


# ---- what members keep from one pass to the next


class Caching(nn.Module):
    """Makes a table when it is first called, as rotary embeddings do."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.table = inner, None

    def forward(self, images):
        if self.table is None:
            self.table = torch.linspace(0.5, 1.5, 10, dtype=images.dtype)
        return self.inner(images) * self.table


class Counting(nn.Module):
    """Changes its mind after some passes."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, images):
        self.calls += 1
        return self.inner(images) * (1.0 if self.calls < 8 else 0.5)


class Weighing:
    """An objective that makes its weights when it is first called."""

    def __init__(self):
        self.weights = None

    def __call__(self, model, batch):
        if self.weights is None:
            self.weights = torch.linspace(0.5, 1.5, 10, dtype=torch.float64)
        return F.cross_entropy(model(batch[0]), batch[1], weight=self.weights)


class Remembering:
    """An objective that keeps a mean of its losses."""

    def __init__(self):
        self.mean = 1.0

    def __call__(self, model, batch):
        loss = F.cross_entropy(model(batch[0]), batch[1])
        self.mean = 0.9 * self.mean + 0.1 * loss.detach()
        return loss / self.mean


def learned_alone(pack, tasks, num_steps):
    """Whether members are, after so many steps, what they are alone."""
    pack.advance(dict.fromkeys(pack.numbers, num_steps))
    found = zip(results(pack), tasks, strict=True)
    return max(deviation(mine, alone(task, num_steps)) for mine, task in found) <= 1e-10


def test_what_is_made_once_and_kept_is_made_before_a_program_is(slow_loop):
    tasks = made(Caching)
    pack = chosen(tasks, [])
    assert pack.engine == "lowered", pack.choice
    assert learned_alone(pack, tasks, 6)


def test_an_objective_that_keeps_something_stays_the_users(slow_loop):
    tasks = made(lambda _: None, objective=Weighing())
    pack = chosen(tasks, [])
    assert pack.engine == "lowered", pack.choice
    assert tasks[0].objective.weights is None
    assert learned_alone(pack, tasks, 6)


@pytest.mark.parametrize(
    ("change", "fields", "words"),
    [
        (Counting, {}, "model.calls changes with each pass"),
        (lambda _: None, {"objective": Remembering()}, "objective.mean changes with each pass"),
    ],
)
def test_what_changes_with_each_pass_is_refused(change, fields, words):
    refused(made(change, **fields), words)


def test_an_objective_that_changes_is_called_as_often_as_alone():
    objective = Remembering()
    tasks = [made(lambda _: None, objective=objective)[0]]
    pack = chosen(tasks, [])  # tries and compares; the loop is what is left
    assert objective.mean == 1.0
    pack.advance({0: 3})
    assert objective.mean != 1.0


def test_an_optimizer_that_draws_is_refused(slow_loop):
    class Langevin(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.add_(torch.randn_like(parameter), alpha=1e-3)

    tasks = made(lambda _: None, optimizer=lambda parameters: Langevin(parameters, lr=0.05))
    refused(tasks, "an optimizer that draws random numbers")
    pack = chosen(tasks, [])
    assert pack.engine == "loop"
    assert learned_alone(pack, tasks, 5)


def test_the_loop_takes_models_that_cannot_be_copied():
    def pruned(model):
        prune.l1_unstructured(model[1], "weight", amount=0.5)

    tasks = made(pruned, ema_decay=None)  # an average is a copy, alone too
    for mine, task in zip(packed(tasks, 4, "loop"), tasks, strict=True):
        assert deviation(mine, alone(task, 4)) == 0.0


def test_parametrized_models_are_packed():
    class Bounded(nn.Module):
        def forward(self, weight):
            return torch.tanh(weight)

    def bounded(model):
        parametrize.register_parametrization(model[1], "weight", Bounded())

    tasks = made(bounded)
    for _ in range(2):  # copying one for the first pack changes the class that it is of
        for mine, task in zip(packed(tasks, 4, "lowered"), tasks, strict=True):
            assert deviation(mine, alone(task, 4)) <= 1e-10


class InPlace(nn.Module):
    """Uses what went into a dropout that works in place."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.dropout = inner, nn.Dropout(0.5, inplace=True)

    def forward(self, images):
        hidden = self.inner[2](self.inner[1](self.inner[0](images)))
        hidden = hidden * 2.0
        return self.inner[3](self.dropout(hidden) + hidden)


def test_dropout_in_place_is_in_place():
    tasks = made(InPlace)
    for mine, task in zip(packed(tasks, 4, "lowered"), tasks, strict=True):
        assert deviation(mine, alone(task, 4)) <= 1e-10


class Replacing(nn.Module):
    """Replaces a buffer in every pass, in evaluation too."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def forward(self, images):
        self.seen = 0.5 * self.seen + images.mean()
        return self.inner(images) * (1.0 + self.seen)


def test_buffers_that_an_evaluation_replaces_are_carried_from_batch_to_batch():
    tasks = made(Replacing)
    for mine, task in zip(packed(tasks, 4, "lowered"), tasks, strict=True):
        assert mine["metrics"] == pytest.approx(alone(task, 4)["metrics"], rel=1e-9)


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_buffers_that_an_evaluation_replaces_are_those_that_training_goes_on_with(ema_decay):
    tasks = made(Replacing, ema_decay=ema_decay)

    def trained(engine):
        pack = Pack(
            [Member(number=n, task=task) for n, task in enumerate(tasks)],
            device="cpu",
            engine=engine,
        )
        for step in (4, 8):
            pack.advance(dict.fromkeys(pack.numbers, step))
            pack.evaluate()
        pack.advance(dict.fromkeys(pack.numbers, 12))
        return results(pack)

    for mine, other in zip(trained("lowered"), trained("loop"), strict=True):
        assert deviation(mine, other) <= 1e-10
        assert mine["metrics"] == pytest.approx(other["metrics"], rel=1e-9)


# ---- numbers that are none


@pytest.mark.parametrize("engine", ["loop", "lowered"])
def test_a_member_whose_loss_is_infinite_shows_no_figures(engine):
    def exploding(model, batch):
        loss = F.cross_entropy(model(batch[0]), batch[1])
        return (
            torch.where(batch[1].sum() % 5 == 0, loss * torch.inf, loss) if model.training else loss
        )

    pack = Pack([Member(number=n, task=task) for n, task in enumerate(made(lambda _: None,
    objective=exploding))], device="cpu", engine=engine)  # fmt: skip
    pack.advance(dict.fromkeys(pack.numbers, 12))
    assert all(loss != loss for loss in pack.losses().values())
    assert all(value != value for row in pack.evaluate().values() for value in row.values())
