"""The functions of a Task are called: what they must return, and whose error it is."""

import functools
import gc

import pytest
import torch
from torch import nn

from volano.errors import TaskError, noted_caller
from volano.task.calls import called, make_model, preview_of


def test_whose_function_raised_is_noted_once():
    with pytest.raises(ZeroDivisionError) as caught, called("optimizer"), called("model"):
        divmod(1, 0)
    assert noted_caller(caught.value) == "the task's model"
    with pytest.raises(TaskError) as caught, called("model"):
        raise TaskError("A rule of Volano's")
    assert noted_caller(caught.value) is None


@pytest.mark.parametrize("model", [nn.Linear, functools.partial(nn.Linear, 2, 2, bogus=1)])
def test_a_factory_that_fails_by_itself(make_task, model):
    with pytest.raises(TypeError) as caught:
        make_model(make_task(model=model))
    assert noted_caller(caught.value) == "the task's model"


class Stateful(nn.Linear):
    def get_extra_state(self):
        return {"calls": 1}


def test_state_that_is_no_tensor_is_refused(make_task):
    with pytest.raises(TaskError, match="_extra_state of Stateful: dict.*Keep numbers in buffers"):
        make_model(make_task(model=lambda: Stateful(64, 10)))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_program_of_torch_jit_is_refused(make_task):
    made = torch.jit.trace(nn.Linear(64, 10), torch.zeros(1, 64))
    with pytest.raises(TaskError, match="Sequential, a program of torch.jit's or with one in it"):
        make_model(make_task(model=lambda: nn.Sequential(made)))


def test_parameters_without_values_are_refused(make_task):
    with pytest.raises(TaskError, match="must have values .*; got Linear on the device meta"):
        make_model(make_task(model=lambda: nn.Linear(64, 10, device="meta")))


def test_a_model_is_fresh_each_time(make_task):
    net, trunk = nn.Linear(64, 10), nn.Linear(64, 8)
    for same in (lambda: net, lambda: nn.Sequential(trunk, nn.Linear(8, 10))):
        task = make_task(model=same)
        make_model(task)
        with pytest.raises(TaskError, match=r"fresh nn.Module each call; got .*weight of the one"):
            make_model(task)
    frozen = nn.Linear(64, 8).requires_grad_(False)
    task = make_task(model=lambda: nn.Sequential(frozen, nn.Linear(8, 10)))
    first = make_model(task)
    assert torch.equal(first[1].weight, make_model(task)[1].weight)  # nothing trains the trunk
    del first
    gc.collect()
    make_model(task)


@pytest.mark.parametrize(
    ("made", "got"),
    [
        (None, "a NoneType"),
        ([1], "a list"),
        ({"image": torch.zeros(2)}, "Tensor is not JSON serializable"),
        ({(1, 2): 3}, "keys must be"),
        ({"step": 3}, "a value named step"),
    ],
)
def test_a_preview_is_a_line_of_json(make_task, made, got):
    with pytest.raises(TaskError, match=f"texts, numbers, and lists of them; got .*{got}"):
        preview_of(make_task(preview=lambda model: made), nn.Identity())
    task = make_task(preview=lambda model: {"text": "a", "values": [1.5, float("nan")]})
    assert preview_of(task, nn.Identity())["text"] == "a"


def test_a_module_that_is_wrapped_for_several_devices_is_refused(make_task):
    def model():
        return nn.Sequential(nn.DataParallel(nn.Linear(64, 10)))

    with pytest.raises(TaskError, match="got DataParallel around Linear. Give what it wraps"):
        make_model(make_task(model=model))
