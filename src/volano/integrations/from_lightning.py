"""A Task from a LightningModule and its data."""

from __future__ import annotations

import copy
import dis
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from volano.errors import TaskError, needs_package
from volano.integrations.foreign import refuse_hooks, set_of, tabulated
from volano.task import Batch, Duration, Loss, Task, num_examples
from volano.task.loss import TAKEN_NAMES
from volano.training.optim.make_optimizer import make_again

# Methods of a module that say what a Task says too, or what it does not need.
_TAKEN = {
    "configure_optimizers", "forward", "prepare_data", "predict_step", "setup", "state_dict",
    "test_dataloader", "test_step", "train_dataloader", "training_step", "val_dataloader",
    "validation_step",
}  # fmt: skip
# What a step may ask of its module that only a Trainer knows.
_OF_TRAINER = {"trainer", "current_epoch", "global_step", "optimizers", "lr_schedulers", "fabric"}


def from_lightning(
    module: Any,
    data: Any,
    *,
    duration: str | Duration,
    leave_out: Collection[str] = (),
    **options: Any,
) -> Task:
    """Returns a Task that trains what a LightningModule trains: its ``training_step`` is the
    objective, what it logs are the metrics, ``configure_optimizers`` gives optimizer and schedule.

    Args:
        module: the LightningModule; copies of it are trained, from the weights that it has.
        data: a DataLoader, a pair of one for training and one for validation, or a
            LightningDataModule.
        duration: the length, as a Task has it: ``Trainer(max_epochs=10)`` is ``"10ep"``.
        leave_out: hooks that may be left out, because the training is the same without them.
        options: other fields of the Task; ``Trainer(gradient_clip_val=1.0)`` is ``clip_norm=1.0``.

    Raises:
        MissingExtraError: Lightning is not installed.
        TaskError: the module or its data is what a Task cannot hold; it names the hook.
    """
    with needs_package("This needs the extra `lightning`", "'volano[lightning]'"):
        import lightning
    name = type(module).__name__
    if not module.automatic_optimization:
        raise TaskError(
            "A module must leave the optimizer steps to the loop around it",
            got=f"{name} with manual optimization, automatic_optimization=False",
            remedy="Keep the loop of yours, with volano run",
        )
    base = lightning.LightningModule
    refuse_hooks(_overridden(module, base), leave_out, name)
    for step in ("training_step", "validation_step"):
        _check_step(module, base, step)
    loaders = _loaders(data, lightning, leave_out)
    training = set_of(loaders[0], is_training=True)
    if loaders[1] is not None:
        options = {"valid": set_of(loaders[1], is_training=False)["data"], **options}
    is_tested = getattr(type(module), "validation_step", None) is not base.validation_step
    fields: dict[str, Any] = {
        "model": lambda: copy.deepcopy(module),
        "objective": _LightningObjective(is_tested),
        "optimizer": lambda groups: make_again(_configured(module)[0], groups),
        "parameter_groups": lambda model: _configured(model)[0].param_groups,
        "duration": duration,
        "name": name.lower(),
        **training,
        **options,
    }
    return _with_schedule(Task(**fields), module, fields)


class _LightningObjective:
    """The step of a LightningModule as an objective, with what it logs.

    Args:
        is_tested: whether the module has a ``validation_step``; otherwise the step of the training
            is evaluated.
    """

    def __init__(self, is_tested: bool) -> None:
        self.is_tested = is_tested

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Returns the loss of a batch."""
        logged: dict[str, Tensor] = {}

        def log(name: str, value: Any, *_: Any, **__: Any) -> None:
            value = torch.as_tensor(value, dtype=torch.float32)
            if value.numel() == 1:
                own = f"logged_{name}" if name in TAKEN_NAMES else name
                logged[own] = value.detach().reshape(())

        def log_dict(values: Any, *_: Any, **__: Any) -> None:
            for name, value in values.items():
                log(name, value)

        is_step = model.training or not self.is_tested
        step: Any = model.training_step if is_step else model.validation_step
        own = vars(model)
        own.update(log=log, log_dict=log_dict)
        try:
            result = step(*(batch, 0)[: _num_arguments(step)])
        finally:
            del own["log"], own["log_dict"]
        loss = result["loss"] if isinstance(result, dict) else result
        count = float(num_examples(batch))
        if loss is None:  # a validation step that logs only
            found = (value for name, value in logged.items() if "loss" in name)
            loss = next(found, torch.zeros(()))
        return Loss(total=loss * count, weight=count, metrics=logged)


def _num_arguments(step: Any) -> int:
    code = step.__func__.__code__
    return 2 if code.co_argcount > 2 or code.co_flags & 0x04 else 1  # 0x04: *args


def _overridden(module: Any, base: Any) -> list[str]:
    """Returns the hooks of Lightning that a module has made its own, and that a Task lacks."""
    own: dict[str, Any] = {}
    for kind in reversed(type(module).__mro__):
        if not kind.__module__.split(".")[0].startswith(
            ("lightning", "pytorch_lightning", "torch")
        ):
            own.update(vars(kind))
    names = [name for name, value in own.items() if callable(value) and hasattr(base, name)]
    return sorted(name for name in names if name not in _TAKEN and not name.startswith("_"))


def _check_step(module: Any, base: Any, name: str) -> None:
    """Raises TaskError if a step asks for what only a Trainer knows."""
    step = getattr(type(module), name, None)
    if step is None or step is getattr(base, name, None):
        return
    code = step.__code__
    asked = sorted(_OF_TRAINER & set(code.co_names))
    if code.co_argcount > 2:
        index = code.co_varnames[2]
        loaded = {i.argval for i in dis.get_instructions(code) if i.opname.startswith("LOAD_")}
        flat = {
            part for value in loaded for part in (value if isinstance(value, tuple) else (value,))
        }
        asked += [index] if index in flat else []
    if asked:
        raise TaskError(
            "A step must depend on model and batch alone",
            got=f"{type(module).__name__}.{name}, which asks for {asked[0]}",
            remedy="Keep the loop of yours, with volano run",
        )


def _loaders(data: Any, lightning: Any, leave_out: Collection[str]) -> tuple[Any, Any]:
    if isinstance(data, lightning.LightningDataModule):
        own = [name for name in vars(type(data)) if name.startswith(("on_", "transfer_"))]
        refuse_hooks(own, leave_out, type(data).__name__)
        data.prepare_data()
        data.setup("fit")
        has_valid = type(data).val_dataloader is not lightning.LightningDataModule.val_dataloader
        return data.train_dataloader(), data.val_dataloader() if has_valid else None
    if isinstance(data, tuple | list):
        if len(data) != 2:
            raise TaskError(
                "Data must be a loader to train on, or a pair of it and one to validate on",
                got=f"{len(data)} of them",
            )
        return data[0], data[1]
    return data, None


def _configured(module: Any) -> tuple[torch.optim.Optimizer, dict[str, Any] | None]:
    """Returns the one optimizer that a module asks for, and how its rates are scheduled.

    Raises:
        TaskError: it asks for several, or for none.
    """
    found = module.configure_optimizers()
    schedulers: Any = []
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], list | tuple):
        found, schedulers = found
    if isinstance(found, dict):
        schedulers = [found["lr_scheduler"]] if found.get("lr_scheduler") is not None else []
        found = found["optimizer"]
    optimizers = list(found) if isinstance(found, list | tuple) else [found]
    if len(optimizers) != 1 or not isinstance(optimizers[0], torch.optim.Optimizer):
        raise TaskError(
            "A module must have one optimizer",
            got=f"{len(optimizers)} from {type(module).__name__}.configure_optimizers",
            remedy="Keep the loop of yours, with volano run",
        )
    if not schedulers:
        return optimizers[0], None
    first = schedulers[0] if isinstance(schedulers, list | tuple) else schedulers
    settings = first if isinstance(first, dict) else {"scheduler": first}
    return optimizers[0], {"interval": "epoch", "frequency": 1, **settings}


def _with_schedule(task: Task, module: Any, fields: dict[str, Any]) -> Task:
    """Returns the task with the schedule of its module; one optimizer is asked for here already."""
    optimizer, settings = _configured(copy.deepcopy(module))
    if settings is None:
        return task
    assert isinstance(task.duration, Duration)
    if task.duration.unit == "min":
        raise TaskError(
            "A schedule of torch needs the number of steps from the start",
            got=f"duration={task.duration.amount}min",
            remedy="Say the duration in epochs or steps",
        )
    per_epoch = task.steps_per_epoch if settings["interval"] == "epoch" else 1
    interval = per_epoch * int(settings["frequency"])
    schedule = tabulated(optimizer, settings["scheduler"], task.num_steps, interval=interval)
    return Task(**{**fields, "schedule": schedule})
