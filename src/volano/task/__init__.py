"""The Task: WHAT is trained, with its losses, durations, schedules and batches. Knows nothing of
plans."""

from volano.task.batch import (
    Batch,
    is_mapping,
    map_tensors,
    num_bytes,
    num_examples,
    pick,
    split,
    tensors_of,
)
from volano.task.callables import describe_callable
from volano.task.describe import describe, describe_data, differences
from volano.task.duration import Duration
from volano.task.loss import (
    Loss,
    as_loss,
    check_finite,
    check_has_gradient,
    check_objective_result,
    mean_metrics,
    metric_sums,
)
from volano.task.schedule import constant, cosine, linear, progress_at, trapezoid
from volano.task.task import Objective, Task

__all__ = [
    "Batch",
    "Duration",
    "Loss",
    "Objective",
    "Task",
    "as_loss",
    "check_finite",
    "check_has_gradient",
    "check_objective_result",
    "constant",
    "cosine",
    "describe",
    "describe_callable",
    "describe_data",
    "differences",
    "is_mapping",
    "linear",
    "map_tensors",
    "mean_metrics",
    "metric_sums",
    "num_bytes",
    "num_examples",
    "pick",
    "progress_at",
    "split",
    "tensors_of",
    "trapezoid",
]
