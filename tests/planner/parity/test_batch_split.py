"""Whether a batch may be split is found by splitting it."""

import functools

import pytest
import torch
from torch import nn

import volano
from conftest import classification, make_mlp
from volano.planner.parity.batch_split import is_divisible


def summed_over_tokens(model, batch):
    """The mean over a weight that is uneven among the examples, said in ``Loss.weight``."""
    inputs, labels = batch
    losses = nn.functional.cross_entropy(model(inputs), labels, reduction="none")
    weights = (labels + 1).to(losses.dtype)
    return volano.Loss(total=(losses * weights).sum(), weight=weights.sum())


def mean_over_tokens(model, batch):
    """The same without saying so."""
    loss = summed_over_tokens(model, batch)
    return loss.total / loss.weight


def contrastive(model, batch):
    """Each example among all others (InfoNCE, van den Oord et al. 2018)."""
    inputs, _ = batch
    one, other = (nn.functional.normalize(model(x), dim=1) for x in (inputs, inputs.flip(1)))
    return nn.functional.cross_entropy(one @ other.T / 0.1, torch.arange(len(inputs)))


def noisy(model, batch):
    """Noise for each example, and one number for all."""
    inputs, labels = batch
    noise = torch.randn_like(inputs) * torch.rand(1, len(inputs)).T * torch.rand(())
    return nn.functional.cross_entropy(model(inputs + noise), labels)


def mixed(model, batch):
    """Each example with another of the batch (mixup, Zhang et al. 2018)."""
    inputs, labels = batch
    return nn.functional.cross_entropy(
        model(inputs + 0.1 * inputs[torch.randperm(len(inputs))]), labels
    )


def in_single(model, batch):
    """With casts that float64 must get past."""
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs.float()).to(torch.float32), labels).float()


class Counting(nn.Module):
    """Its gradient is that of its parts, its state is not."""

    def __init__(self):
        super().__init__()
        self.net = make_mlp()
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.passes += 1
        return self.net(x)


class Followed(nn.Module):
    """A student, and a teacher that follows it in each forward pass (BYOL, Grill et al. 2020). At
    first they agree."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher = make_mlp(), make_mlp()
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            for own, other in zip(
                self.teacher.parameters(), self.student.parameters(), strict=True
            ):
                own.lerp_(other, 0.01)
        return self.student(x) + self.teacher(x)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("objective", [classification, summed_over_tokens, noisy, in_single])
def test_what_may_be_split(make_task, objective, dropout):
    found = is_divisible(
        make_task(objective=objective, model=functools.partial(make_mlp, dropout=dropout))
    )
    assert found.yes, found
    assert found.difference < 1e-12
    assert "in float64" in found.reason


@pytest.mark.parametrize(
    "fields",
    [
        {
            "model": lambda: nn.Sequential(
                nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10)
            )
        },
        {"objective": contrastive},
        {"objective": mean_over_tokens},
        {"objective": mixed},
        {"model": Counting},
        {"model": Followed},
        {"objective": lambda model, batch: classification(model, batch) * len(batch[0])},
    ],
    ids=[
        "BatchNorm",
        "contrastive",
        "tokens unsaid",
        "mixup",
        "state",
        "teacher",
        "a sum that is called a mean",
    ],
)
def test_what_must_not(make_task, fields):
    found = is_divisible(make_task(**fields))
    assert not found.yes, found
    assert found.difference > 1e-3


def test_frozen_statistics_couple_nothing(make_task):
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(64).eval(), nn.Linear(64, 10)

        def forward(self, x):
            return self.head(self.norm(x))

    assert is_divisible(make_task(model=Frozen)).yes


def test_without_float64_it_is_measured_in_fp32_and_said(make_task):
    def objective(model, batch):
        if batch[0].dtype == torch.float64:
            raise TypeError("only singles")
        return classification(model, batch)

    found = is_divisible(make_task(objective=objective))
    assert found.yes
    assert "in fp32; float64 fails with TypeError: only singles" in found.reason
    assert found.difference < 1e-5


def test_an_objective_that_needs_the_whole_batch(make_task):
    def objective(model, batch):
        if len(batch[0]) < 8:
            raise ValueError("a batch has 8 examples")
        return classification(model, batch)

    found = is_divisible(make_task(objective=objective))
    assert not found.yes
    assert "a part of a batch fails with ValueError: a batch has 8 examples" in found.reason


def test_nothing_of_the_callers_is_touched(make_task):
    task = make_task(model=functools.partial(make_mlp, dropout=0.5), objective=noisy)
    before = torch.get_rng_state()
    is_divisible(task)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32


class Padded(torch.utils.data.Dataset):
    """Labels for ten places, of which some examples leave seven out: every fourth, or those of the
    second batch."""

    def __init__(self, short):
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(512, 16, generator=generator)
        self.labels = torch.randint(4, (512, 10), generator=generator)
        for index in range(512):
            if short(index):
                self.labels[index, 3:] = -100

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], self.labels[index]


def mean_over_places(model, batch):
    """As cross_entropy does by itself."""
    return nn.functional.cross_entropy(
        model(batch[0]).view(-1, 4), batch[1].reshape(-1), ignore_index=-100
    )


@pytest.mark.parametrize("seed", range(12))
def test_examples_that_differ_are_looked_at(make_task, seed):
    fields = {
        "model": lambda: nn.Linear(16, 40),
        "objective": mean_over_places,
        "batch_size": 16,
        "seed": seed,
    }
    assert not is_divisible(make_task(data=Padded(lambda index: index % 4 == 0), **fields)).yes
    assert not is_divisible(make_task(data=Padded(lambda index: index % 16 == 0), **fields)).yes
    assert is_divisible(make_task(data=Padded(lambda index: False), **fields)).yes


def test_a_class_weighted_mean_is_recognised_by_a_rare_class():
    torch.manual_seed(0)
    labels = torch.arange(512) % 4
    labels[300] = 9
    weight = torch.ones(10)
    weight[9] = 50.0
    task = volano.Task(
        model=lambda: torch.nn.Linear(6, 10),
        objective=lambda model, batch: torch.nn.functional.cross_entropy(
            model(batch[0]), batch[1], weight=weight
        ),
        data=torch.utils.data.TensorDataset(torch.randn(512, 6), labels),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.1),
        batch_size=64,
        duration="1ep",
    )
    found = is_divisible(task)
    assert not found.yes
    assert "couples the examples" in found.reason
