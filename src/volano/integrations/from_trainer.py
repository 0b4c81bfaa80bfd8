"""A Task from a Trainer of transformers."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Iterator
from typing import Any

from torch import Tensor, nn

from volano.errors import TaskError, needs_package
from volano.integrations.foreign import refuse_hooks, set_of, tabulated
from volano.task import Batch, Task
from volano.training.optim.make_optimizer import make_again

# Methods of the Trainer's loop that a Task does not call.
_LOOP = (
    "training_step", "evaluation_loop", "prediction_step", "evaluate", "log", "train",
    "inner_training_loop", "get_batch_samples", "optimizer_step",
)  # fmt: skip
# Arguments that change what is learned, with the value that leaves it.
_NEUTRAL = {
    "neftune_noise_alpha": None, "deepspeed": None, "auto_find_batch_size": False,
    "train_sampling_strategy": "random", "full_determinism": False,
}  # fmt: skip


def from_trainer(trainer: Any, *, leave_out: Collection[str] = (), **options: Any) -> Task:
    """Returns a Task that trains what a Trainer of transformers trains: its ``compute_loss`` is the
    objective; batch size (accumulation included), optimizer, schedule, clipping, length and seed
    are those of its arguments. Precision, workers and the like are left to the plan.

    Args:
        trainer: the ``transformers.Trainer``; copies of its model are trained.
        leave_out: hooks and callbacks that may be left out, because the training is the same
            without them.
        options: fields of the Task that differ.

    Raises:
        MissingExtraError: transformers is not installed.
        TaskError: the trainer is what a Task cannot hold; it names the hook.
    """
    with needs_package("This needs the extra `transformers`", "'volano[transformers]'"):
        import transformers
    kind, arguments = type(trainer), trainer.args
    own = [
        name for name in _LOOP
        if getattr(kind, name, None) is not getattr(transformers.Trainer, name, None)
    ]  # fmt: skip
    refuse_hooks(own, leave_out, kind.__name__)
    refuse_hooks(_callbacks(trainer), leave_out, "callbacks")
    for name, neutral in _NEUTRAL.items():
        if getattr(arguments, name, neutral) not in (neutral, None):
            raise TaskError(
                "The arguments of a Trainer must have a counterpart in a Task",
                got=f"{name}={getattr(arguments, name)!r}",
            )
    data = set_of(trainer.get_train_dataloader(), is_training=True)
    parts = arguments.gradient_accumulation_steps
    length = (
        f"{arguments.max_steps}st" if arguments.max_steps > 0 else f"{arguments.num_train_epochs}ep"
    )
    fields: dict[str, Any] = {
        "model": lambda: copy.deepcopy(trainer.model),
        "objective": _TrainerObjective(trainer),
        "optimizer": lambda groups: make_again(_optimizer(trainer, trainer.model), groups),
        "parameter_groups": lambda model: _optimizer(trainer, model).param_groups,
        "clip_norm": arguments.max_grad_norm or None,
        "duration": length,
        "seed": arguments.seed,
        "name": "trainer",
        **data,
        "batch_size": data["batch_size"] * parts,
    }
    if trainer.eval_dataset is not None and not isinstance(trainer.eval_dataset, dict):
        fields["valid"] = set_of(trainer.get_eval_dataloader(), is_training=False)["data"]
    fields |= options
    task = Task(**fields)
    return Task(**{**fields, "schedule": _schedule(trainer, task.num_steps), **options})


class _TrainerObjective:
    """The loss of a batch, as a Trainer computes it."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns the mean loss of a batch."""
        return self._trainer.compute_loss(model, dict(batch))  # it takes labels out of it


def _callbacks(trainer: Any) -> list[str]:
    """Returns the names of callbacks that a person has added."""
    found = trainer.callback_handler.callbacks
    return [
        type(callback).__name__
        for callback in found
        if not type(callback).__module__.startswith("transformers.")
    ]


@contextlib.contextmanager
def _borrowed(trainer: Any, model: nn.Module | None = None) -> Iterator[None]:
    """Returns a context after which a trainer has its own model, optimizer and scheduler again."""
    names = ("model", "optimizer", "lr_scheduler", "_created_lr_scheduler")
    before = {name: getattr(trainer, name) for name in names if hasattr(trainer, name)}
    if model is not None:
        trainer.model = model
    trainer.lr_scheduler = None
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(trainer, name, value)


def _optimizer(trainer: Any, model: nn.Module) -> Any:
    """Returns the optimizer that a trainer makes for a model; one that it was given, made again for
    the model's parameters."""
    given = trainer.optimizer
    if given is not None:
        names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
        found = dict(model.named_parameters())
        groups = [
            {**group, "params": [found[names[id(p)]] for p in group["params"]]}
            for group in given.param_groups
        ]
        return make_again(given, groups)
    with _borrowed(trainer, model):
        return trainer.create_optimizer()


def _schedule(trainer: Any, num_steps: int) -> Any:
    model = copy.deepcopy(trainer.model)
    optimizer = _optimizer(trainer, model)
    if trainer.lr_scheduler is not None:
        raise TaskError(
            "A schedule must be told by the arguments, to be made for the Task",
            got=f"a {type(trainer.lr_scheduler).__name__} in Trainer(optimizers=)",
            remedy="Give `schedule`, a function from progress (0 to 1) to a multiplier",
        )
    with _borrowed(trainer, model):
        trainer.optimizer = optimizer
        scheduler = trainer.create_scheduler(num_steps, optimizer)
    return tabulated(optimizer, scheduler, num_steps)
