"""The guard's controls: honest plans, which must pass, and faults that a plan brings about, which
must be struck.

    python benchmarks/guard_controls.py            # eager plans, about a minute on one core
    python benchmarks/guard_controls.py --compile  # with compiled ones, about six minutes more

Honest: the repository's own networks and small ones of other kinds under each knob. `error` is the
gradient's relative L2 error against float64, `eager` that of plain eager PyTorch at the same
precision; `cosine` that of the gradient, `update` that of the weights' change after three steps;
`slope` the loss's change over what the gradient says of it, where recomputed or compiled code draws
random numbers.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from sklearn.datasets import load_digits
from torch import nn

from volano import Plan, Task
from volano.apps.image.application import ImageApplication
from volano.apps.image.options import ImageOptions
from volano.apps.text.application import TextApplication
from volano.apps.text.options import TextOptions
from volano.apps.video.application import VideoApplication
from volano.apps.video.options import VideoOptions
from volano.planner.parity.bisect_knobs import find_fault
from volano.planner.parity.check import Parity, check_parity
from volano.planner.parity.reference import Reference

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from planner import faults  # the very faults that the tests strike

BASELINE = Plan.baseline()
SECONDS = 20.0
NARROW = {"precision": "bf16", "memory_format": "channels_last", "optimizer": "fused"}
HONEST: list[dict[str, Any]] = [
    {},
    {"memory_format": "channels_last", "optimizer": "fused"},
    {"micro_batch": 3},
    NARROW,
]
RECOMPUTED: list[dict[str, Any]] = [{"recompute": "blocks"}]
COMPILED: list[dict[str, Any]] = [{"compile": True}, {"compile": True, **NARROW}]


def classification(model: nn.Module, batch: Any) -> torch.Tensor:
    """Mean cross-entropy."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def digits_task(model: Any) -> Task:
    """A net on the digits."""
    pixels, labels = load_digits(return_X_y=True)
    data = torch.utils.data.TensorDataset(
        torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
    )
    optimizer = functools.partial(torch.optim.AdamW, lr=0.01)
    return Task(
        model=model,
        objective=classification,
        data=data,
        optimizer=optimizer,
        batch_size=32,
        duration="50st",
    )


def mlp() -> nn.Module:
    """With dropout."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))


def normed() -> nn.Module:
    """With BatchNorm."""
    return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))


def row(name: str, knobs: dict[str, Any], expected: bool, found: Parity, note: str = "") -> bool:
    """Prints one line; whether the verdict is the expected one."""
    figures = found.figures
    columns = [
        f"{figures[key]:.1e}" if key in figures else "-" for key in ("error", "eager_error")
    ] + [
        f"{figures[key]:.5f}" if key in figures else "-"
        for key in ("cosine", "third_update_cosine", "slope_ratio")
    ]
    what = ", ".join(f"{key}={value}" for key, value in knobs.items()) or "baseline"
    verdict = "passes" if found.passed else "struck"
    is_right = found.passed == expected
    reason = "" if found.passed else f"\n    {found.reason}{note}"
    print(
        f"{name:12} {what:62} {columns[0]:>8} {columns[1]:>8} {columns[2]:>8} {columns[3]:>8} "
        f"{columns[4]:>8} "
        f"{figures['seconds']:6.1f} s {verdict}{'' if is_right else '  <- WRONG'}{reason}",
        flush=True,
    )
    return is_right


def honest(folder: Path, *, compiled: bool) -> list[bool]:
    """The repository's networks and an MLP under honest plans."""
    tasks = {
        "mlp": digits_task(mlp),
        "image": ImageApplication.read(ImageOptions()).task(100),
        "text": TextApplication.read(TextOptions(), folder)
        .with_shape(depth=2, batch_size=8)
        .task(100),
        "video": VideoApplication.read(VideoOptions()).task(100),
    }
    right = []
    for name, task in tasks.items():
        reference = Reference(task, seconds=SECONDS)
        for knobs in (
            HONEST
            + (RECOMPUTED if name in ("text", "video") else [])
            + (COMPILED if compiled else [])
        ):
            if name == "text":  # whose buffers are no images
                knobs = {key: value for key, value in knobs.items() if key != "memory_format"}
            # The image network has BatchNorm; and a global maximum, which torch 2.13 compiles
            # wrongly in bf16.
            expected = not (
                name == "image"
                and ("micro_batch" in knobs or {"compile", "precision"} <= knobs.keys())
            )
            right.append(
                row(
                    name,
                    knobs,
                    expected,
                    check_parity(task, BASELINE.pin(**knobs), reference=reference),
                )
            )
    return right


def dishonest(*, compiled: bool) -> list[bool]:
    """What must be struck, with the knobs that are found to be at fault."""
    wrong = functools.partial
    controls: list[tuple[str, Any, dict[str, Any]]] = [
        ("gradient", wrong(faults.WrongGradient, faults.in_bf16), {**NARROW, "micro_batch": 16}),
        (
            "gradient",
            wrong(faults.WrongGradient, faults.in_parts),
            {"optimizer": "fused", "micro_batch": 16},
        ),
        ("batchnorm", normed, {**NARROW, "micro_batch": 16}),
        ("overflow", faults.Overflowing, NARROW),
    ]
    if compiled:
        controls.append(
            ("gradient", wrong(faults.WrongGradient, faults.compiled), {"compile": True, **NARROW})
        )
        controls.append(("compiler", faults.GlobalMaximum, {"compile": True, **NARROW}))
    right = []
    for name, model, knobs in controls:
        task, plan = digits_task(model), BASELINE.pin(**knobs)
        reference = Reference(task)
        found = check_parity(task, plan, reference=reference)
        fault = find_fault(task, plan, reference)
        right.append(row(name, knobs, False, found, note=f"; at fault: {', '.join(fault)}"))
    task, knobs = digits_task(mlp), {"recompute": "blocks"}
    with (
        mock.patch("volano.planner.parity.reference.Session", faults.OtherDropout),
        mock.patch("volano.planner.parity.directional_derivative.Session", faults.OtherDropout),
    ):
        right.append(row("dropout", knobs, False, check_parity(task, BASELINE.pin(**knobs))))
    return right


def main(*, compiled: bool) -> None:
    """Prints the table; the exit status says whether every verdict was right."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(
        f"{'task':12} {'plan':62} {'error':>8} {'eager':>8} {'cosine':>8} {'update':>8} "
        f"{'slope':>8} {'cost':>8}"
    )
    with tempfile.TemporaryDirectory() as folder:
        right = dishonest(compiled=compiled) + honest(Path(folder), compiled=compiled)
    print(f"{sum(right)} of {len(right)} verdicts as expected")
    sys.exit(0 if all(right) else 1)


if __name__ == "__main__":
    main(compiled="--compile" in sys.argv[1:])
