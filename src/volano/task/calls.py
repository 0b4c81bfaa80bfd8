"""Calls the functions of a Task: what they must return, and whose error it is if they raise."""

from __future__ import annotations

import json
import random
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from volano.errors import TaskError, note_caller
from volano.task.task import Task

# Of torch: they would train over several devices within a plan that does so.
_WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")
# Trained parameters of the models that were made, as long as they live, by their addresses.
_made: weakref.WeakValueDictionary[int, nn.Parameter] = weakref.WeakValueDictionary()


class called:  # noqa: N801 - used as a function; a generator's context costs each step some 2 us
    """A context in which a task's function of that name is called; an exception that leaves it says
    so."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        if isinstance(error, Exception):
            note_caller(error, f"the task's {self._name}")


def make_model(task: Task) -> nn.Module:
    """Returns a fresh model of a task, in training mode, with the weights with which every run of
    it begins. Seeds the host's generators.

    Raises:
        TaskError: it is no module, it is not fresh, or it holds what is no tensor with values.
    """
    # Objectives may draw from NumPy or `random` too; these continue from here, and are part of
    # a checkpoint.
    torch.manual_seed(task.seed)
    random.seed(task.seed)
    np.random.seed(task.seed & 0xFFFFFFFF)
    with called("model"):
        model = task.model()
    if not isinstance(model, nn.Module):
        raise TaskError("model() must return an nn.Module", got=type(model).__name__)
    _check_is_itself(model)
    _check_parameters(model)
    _check_fresh(model)
    # As every training loop does: a factory may give a whole model in evaluation mode, and a
    # `train` of a person's own may freeze norms, which nobody has called yet. Without one, a
    # part in evaluation mode within a model in training mode was frozen on purpose: it stays.
    has_own = any(type(part).train is not nn.Module.train for part in model.modules())
    return model if model.training and not has_own else model.train()


def preview_of(task: Task, model: nn.Module) -> dict[str, Any]:
    """Returns what a task's preview makes of a model.

    Raises:
        TaskError: a line of JSON cannot hold it.
    """
    assert task.preview is not None
    with called("preview"):
        found = task.preview(model)
    try:
        if not isinstance(found, Mapping):
            raise TypeError(f"a {type(found).__name__}")
        if "step" in found:
            raise TypeError("a value named step, which each line has")
        json.dumps(dict(found))
    except (TypeError, ValueError, RecursionError) as error:
        raise TaskError(
            "`preview` must return a mapping of texts, numbers, and lists of them",
            got=str(error),
            remedy="Convert tensors with .tolist()",
        ) from error
    return dict(found)


def _check_is_itself(model: nn.Module) -> None:
    """Refuses what is wrapped for several devices, which plans are for."""
    for part in model.modules():
        if type(part).__name__ in _WRAPPERS and isinstance(
            getattr(part, "module", None), nn.Module
        ):
            raise TaskError(
                "A model must be the module itself, not wrapped for several devices",
                got=f"{type(part).__name__} around {type(part.module).__name__}",
                remedy="Give what it wraps; several processes are asked for by `nproc`",
            )


def _check_parameters(model: nn.Module) -> None:
    name = type(model).__name__
    if any(map(nn.parameter.is_lazy, model.parameters())):
        raise TaskError(
            "A model's parameters must have their shapes when it is made",
            got=f"{name} with lazy modules",
            remedy="Pass an example through it in `model`, before it is returned",
        )
    if any(isinstance(part, torch.jit.ScriptModule) for part in model.modules()):
        raise TaskError(
            "A model must consist of nn.Modules, whose parts can be seen and changed",
            got=f"{name}, a program of torch.jit's or with one in it",
            remedy="Give the module of which torch.jit.script made it",
        )
    if any(one.is_meta for one in (*model.parameters(), *model.buffers())):
        raise TaskError(
            "A model's parameters must have values when it is made",
            got=f"{name} on the device meta",
            remedy="Make it on the CPU, or fill it: model.to_empty(device='cpu')",
        )
    for part, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise TaskError(
                "A model's state must be tensors, which weights and checkpoints can hold",
                got=f"{part} of {name}: {type(value).__name__}",
                remedy="Keep numbers in buffers instead of `get_extra_state`",
            )


def _check_fresh(model: nn.Module) -> None:
    """Notes the model's trained parameters, and refuses those of a model before: they have been
    trained since, by the planner for one."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and _made.get(id(parameter)) is parameter:
            raise TaskError(
                "`model` must make a fresh nn.Module each call",
                got=f"{type(model).__name__} with {name} of the one before",
                remedy="Make it within the function, or return copy.deepcopy(...) of it",
            )
    _made.update((id(one), one) for one in model.parameters() if one.requires_grad)
