import functools

import numpy as np
import pytest
import torch
from torch import nn

import volano
from conftest import make_mlp
from volano.errors import TaskError


class Unsized(torch.utils.data.Dataset):
    def __len__(self):
        raise RuntimeError("it is not known")


def test_a_task_knows_its_steps(make_task):
    task = make_task(duration="2ep", batch_size=100)
    assert task.steps_per_epoch == 5  # 512 examples, the last 12 dropped
    assert task.num_steps == 10
    assert make_task(duration="2ep", batch_size=100, last_batch="keep").num_steps == 12
    assert make_task(duration="7st").num_steps == 7
    assert make_task(duration="0.5ep").num_steps == 8


def test_a_task_is_frozen_and_keyword_only(make_task):
    task = make_task()
    with pytest.raises(AttributeError):
        task.batch_size = 64
    with pytest.raises(TypeError):
        volano.Task(make_mlp)  # pyright: ignore


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be a whole number of examples above 0; got 0"),
        (
            {"batch_size": 1000},
            "must fill at least one batch; got 512 examples and batch_size=1000.*last_batch='keep'",
        ),
        ({"duration": "10"}, "A duration must be a number with its unit; got '10'.*'10ep'"),
        ({"duration": "0ep"}, "duration must be above 0"),
        ({"duration": "1.5st"}, "number of steps must be whole"),
        ({"clip_norm": -1.0}, "`clip_norm` must be a finite norm above 0"),
        ({"clip_norm": "1"}, "`clip_norm` must be a finite norm above 0, or None; got '1'"),
        ({"clip_norm": True}, "`clip_norm` must be a finite norm"),
        ({"ema_decay": 1.0}, "`ema_decay` must lie between 0 and 1"),
        ({"ema_decay": "0.9"}, "`ema_decay` must lie between 0 and 1; got '0.9'"),
        ({"batch_size": True}, "`batch_size` must be a whole number"),
        ({"batch_size": np.float64(8)}, "`batch_size` must be a whole number"),
        ({"schedule": lambda progress: 1 / progress}, "`schedule` .* progress 0 .ZeroDivisionErr"),
        ({"schedule": lambda progress, step: 1.0}, "`schedule` must be a function from progress"),
        ({"name": None}, "`name` must be a text; got None"),
        ({"data": Unsized()}, "`data` must know how many examples it holds; got len: RuntimeErr"),
        ({"seed": -1}, "`seed` must be a whole number"),
        ({"data_seed": -1}, "`data_seed` must be a whole number"),
        (
            {"tolerance": "bf16"},
            "`tolerance` must be one of exact, rounding, precision; got 'bf16'",
        ),
        ({"last_batch": "pad"}, "`last_batch` must be 'drop' or 'keep'"),
        (
            {"model": nn.Linear(2, 2)},
            "fresh nn.Module each call; got an instance of Linear.*lambda: Linear",
        ),
        (
            {"optimizer": torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)},
            "function from parameters",
        ),
        ({"objective": 3}, "`objective` must be a callable; got int"),
        ({"augment": 3}, "`augment` must be a callable or None"),
        ({"data": iter([])}, "`data` must be a map-style dataset"),
        ({"data": []}, "`data` must hold at least one example"),
        ({"valid": {}}, "`valid` must be a map-style dataset"),
        (
            {"valid": None, "preview": dict},
            "it is called after evaluations; got a task without valid",
        ),
    ],
)
def test_a_wrong_field_is_refused_at_birth(make_task, fields, message):
    with pytest.raises(TaskError, match=f"(?s){message}"):
        make_task(**fields)


def test_numbers_of_numpy_are_pythons(make_task):
    fields = {"batch_size": np.int64(8), "seed": np.int32(4), "clip_norm": np.float32(0.5)}
    task = make_task(**fields)
    assert [(type(one), one) for one in (task.batch_size, task.seed, task.clip_norm)] == [
        (int, 8), (int, 4), (float, 0.5)
    ]  # fmt: skip
    assert type(make_task(clip_norm=1).clip_norm) is int  # as descriptions of runs have it


def test_a_dataloader_is_refused_with_a_remedy(make_task, digits):
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*digits))
    with pytest.raises(TaskError, match=r"DataLoader's \.dataset"):
        make_task(data=loader)


def test_parameter_groups_of_ones_own(make_task, quiet, tmp_path):
    def groups(model):
        return [
            {"params": [model[0].weight], "lr": 0.0},
            {"params": [model[3].weight, model[3].bias, model[0].bias]},
        ]

    task = make_task(parameter_groups=groups, optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    run = volano.train(task, out=tmp_path / "run", observer=quiet)
    torch.manual_seed(task.seed)
    fresh = make_mlp()
    assert torch.equal(run.model[0].weight, fresh[0].weight)  # a learning rate of zero
    assert not torch.equal(run.model[3].weight, fresh[3].weight)
