"""Makes a task's optimizer, with the implementation that a plan names."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import nn

from volano.device import Device
from volano.device.torch_private import load_dynamo, mark_scaling_in_step
from volano.errors import TaskError
from volano.plan import Plan
from volano.task import Task
from volano.task.calls import called

_MARKS = ("foreach", "fused")


def make_optimizer(task: Task, model: nn.Module) -> torch.optim.Optimizer:
    """The task's optimizer over the model's parameters; each group's learning rate is kept as
    ``initial_lr``.

    Raises:
        TaskError: the model has no parameters to train, or what was made is no
            torch.optim.Optimizer whose groups have rates.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        num_frozen = sum(parameter.numel() for parameter in model.parameters())
        raise TaskError(
            "A model must have parameters to train",
            got=f"{type(model).__name__} with none that requires a gradient",
            remedy=f"All {num_frozen:,} are frozen: leave its head, say, as it is"
            if num_frozen
            else "Register its tensors as nn.Parameter",
        )
    load_dynamo()
    # A list, for whoever goes through them twice: `[p for p in params if ...]` two times over a
    # generator leaves everything out of the second group, in silence.
    groups = _groups(task, model)
    with called("optimizer"):
        optimizer = task.optimizer(groups)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TaskError(
            "optimizer(params) must return a torch.optim.Optimizer", got=type(optimizer).__name__
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise closure_needed(type(optimizer).__name__)
    for group in optimizer.param_groups:
        rate = group.get("initial_lr", group.get("lr"))
        if not isinstance(rate, Real | torch.Tensor):
            raise TaskError(
                "Each group of an optimizer must have a learning rate that is a number",
                got=f"lr={rate!r} of {type(optimizer).__name__}",
                remedy="Give it one",
            )
        group["initial_lr"] = rate.clone() if isinstance(rate, torch.Tensor) else float(rate)
    return optimizer


def _groups(task: Task, model: nn.Module) -> list[Any]:
    if task.parameter_groups is None:
        return list(model.parameters())
    with called("parameter_groups"):
        groups = task.parameter_groups(model)
    if not isinstance(groups, Iterable) or isinstance(groups, Mapping):
        raise TaskError(
            "`parameter_groups` must return a list of groups, as torch.optim takes them",
            got=type(groups).__name__,
        )
    return list(groups)


def make_again(
    optimizer: torch.optim.Optimizer, groups: Iterable[dict[str, Any]]
) -> torch.optim.Optimizer:
    """Returns an optimizer of the same class and settings over other parameters; its state begins
    at zero."""
    known = inspect.signature(type(optimizer)).parameters
    settings = {name: value for name, value in optimizer.defaults.items() if name in known}
    kind: Any = type(optimizer)
    # `initial_lr` is a scheduler's note: what the optimizer has now is the rate.
    plain = [{k: v for k, v in group.items() if k != "initial_lr"} for group in groups]
    return kind(plain, **settings)


def closure_needed(name: str) -> TaskError:
    """Returns the error that an optimizer asks for gradients in the middle of its step."""
    return TaskError(
        "An optimizer must make a step from one gradient",
        got=f"{name}, which needs a closure that computes more of them",
        remedy="Take another optimizer, such as torch.optim.AdamW",
    )


def set_mode(optimizer: torch.optim.Optimizer, *, training: bool) -> None:
    """Tells an optimizer that keeps other weights for evaluation (schedule-free ones) which of
    them the model must have."""
    method = getattr(optimizer, "train" if training else "eval", None)
    if callable(method):
        method()


def left_out(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """Returns the names of trainable parameters that no group of the optimizer holds."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in held
    ]


def choose_implementation(
    optimizer: torch.optim.Optimizer, model: nn.Module, plan: Plan, device: Device
) -> str | None:
    """Sets the plan's implementation if the class has it and the user has chosen none.

    Returns:
        Why the plan's choice was not applied, or None when it was.
    """
    wanted = plan.optimizer
    if wanted == "as_given":
        return None
    kind = type(optimizer).__name__
    if (
        not type(optimizer).__module__.startswith("torch.optim.")
        or wanted not in optimizer.defaults
    ):
        return f"{kind} has no {wanted} implementation of torch's; it runs as given"
    if any(optimizer.defaults.get(name) is not None for name in _MARKS):
        return f"{kind} was given an implementation by the task; that stands"
    if optimizer.defaults.get("differentiable") or optimizer.defaults.get("maximize"):
        return f"{kind} is differentiable or maximizes; it runs as given"
    if any(getattr(module, "sparse", False) for module in model.modules()):
        return (
            f"the model has sparse gradients, which a {wanted} {kind} does not take; it runs "
            "as given"
        )
    if any(p.is_complex() for group in optimizer.param_groups for p in group["params"]):
        return f"the model has complex parameters; {kind} runs as given, not {wanted}"
    if wanted == "fused" and not device.has_fused(type(optimizer)):
        return f"{device.name} has no fused {kind}; it runs as given"
    set_implementation(optimizer, wanted)
    return None


def set_implementation(optimizer: torch.optim.Optimizer, wanted: str) -> None:
    """Marks every group; torch's optimizers read the mark at each step."""
    for group in optimizer.param_groups:
        group[wanted] = True
    if wanted == "fused":
        # As its constructor does for fused=True; else a GradScaler reads its flag on the host at
        # each step.
        mark_scaling_in_step(optimizer)


def with_own_marks(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A saved state with the marks of ``optimizer``: which implementation runs is the plan's, not
    the checkpoint's.

    Before it is loaded, for fused ones keep their step counts on the device.
    """
    groups = [
        {**saved, **{name: own[name] for name in _MARKS if name in own}}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    return {**state, "param_groups": groups}


def set_learning_rates(optimizer: torch.optim.Optimizer, multiplier: float) -> None:
    """Sets each group's learning rate to its initial one times ``multiplier``; a tensor stays the
    same tensor."""
    for group in optimizer.param_groups:
        rate = group["lr"]
        if isinstance(rate, torch.Tensor):
            rate.copy_(group["initial_lr"] * multiplier)
        else:
            # A plain float: NumPy's would not load with weights_only=True.
            group["lr"] = float(group["initial_lr"] * multiplier)
