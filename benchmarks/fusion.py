"""What fusing could leave of the bytes and kernels between matrix operations, in recorded steps.

    python benchmarks/fusion.py

The forward and backward passes of the networks of time_prediction.py are recorded operation by
operation. All that is executed between two matrix operations is taken as one kernel, which reads
each storage that comes from outside once and writes those that are used outside. The shares stand
in planner/time/roofline.py. Seconds; nothing is timed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from time_prediction import tasks
from volano.device import Device
from volano.planner.time.operations import describe_operation, is_computation

FUSED = ("pointwise", "normalization", "reduction")


class Recorder(TorchDispatchMode):
    """Kind, storages read and storages written of each operation; nothing is freed, so that
    storages differ."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[str, dict[int, int], dict[int, int]]] = []
        self._kept: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        operation = (
            describe_operation(func, args, kwargs or {}, result, "forward")
            if is_computation(func)
            else None
        )
        if operation is not None:
            self.records.append(
                (operation.kind, self._storages((args, kwargs)), self._storages(result))
            )
        return result

    def _storages(self, tree: Any) -> dict[int, int]:
        tensors = [value for value in tree_iter(tree) if isinstance(value, torch.Tensor)]
        self._kept += tensors
        return {tensor.untyped_storage()._cdata: tensor.nbytes for tensor in tensors}


def shares(
    records: list[tuple[str, dict[int, int], dict[int, int]]], results: set[int]
) -> tuple[float, float]:
    """Of bytes and of kernels, that are left; ``results`` are storages that outlive the step."""
    last_use = {storage: number for number, (_, read, _) in enumerate(records) for storage in read}
    before = after = count = groups = 0
    number = 0
    while number < len(records):
        made: dict[int, int] = {}
        read: dict[int, int] = {}
        start = number
        while number < len(records) and records[number][0] in FUSED:
            _, inputs, outputs = records[number]
            before += sum(inputs.values()) + sum(outputs.values())
            read |= {storage: size for storage, size in inputs.items() if storage not in made}
            made |= outputs
            number += 1
        written = (
            size
            for storage, size in made.items()
            if last_use.get(storage, -1) >= number or storage in results
        )
        after += sum(read.values()) + sum(written) if made else 0
        count, groups = count + number - start, groups + (number > start)
        number += 1
    return after / before, groups / count


def main() -> None:
    device = Device("cpu")
    for name, task in tasks().items():
        for precision in ("fp32", "bf16"):
            torch.manual_seed(0)
            model = task.model()
            batch = tuple(column[: task.batch_size] for column in task.data.tensors)
            with Recorder() as recorder:
                with device.autocast(precision):
                    loss = task.objective(model, batch)
                loss.backward()
            results = {loss.untyped_storage()._cdata}
            gradients = [
                parameter.grad for parameter in model.parameters() if parameter.grad is not None
            ]
            results |= {gradient.untyped_storage()._cdata for gradient in gradients}
            num_bytes, kernels = shares(recorder.records, results)
            print(
                f"{name:18} {precision}: {num_bytes:.2f} of the bytes, {kernels:.2f} of the kernels"
            )


if __name__ == "__main__":
    main()
