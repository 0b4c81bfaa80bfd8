"""Volano: say what to train; Volano plans how.

The public door. Names are loaded at first use, so that ``import volano`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from volano.api import doctor, explain, explore, verify
    from volano.data import Arrays, MemoryMapped, open_table, spool
    from volano.device import Device
    from volano.errors import VolanoError
    from volano.plan import Plan
    from volano.planner import Explanation
    from volano.running.processes import Processes
    from volano.running.train import resume, train
    from volano.study import Study
    from volano.task import Duration, Loss, Task, constant, cosine, linear, trapezoid
    from volano.training import Observer, Run, Safety

_HOMES = {
    "Arrays": "volano.data",
    "Device": "volano.device",
    "Duration": "volano.task",
    "Explanation": "volano.planner",
    "Loss": "volano.task",
    "MemoryMapped": "volano.data",
    "Observer": "volano.training",
    "Plan": "volano.plan",
    "Processes": "volano.running.processes",
    "Run": "volano.training",
    "Safety": "volano.training",
    "Study": "volano.study",
    "Task": "volano.task",
    "VolanoError": "volano.errors",
    "constant": "volano.task",
    "cosine": "volano.task",
    "doctor": "volano.api",
    "explain": "volano.api",
    "explore": "volano.api",
    "linear": "volano.task",
    "open_table": "volano.data",
    "resume": "volano.running.train",
    "spool": "volano.data",
    "train": "volano.running.train",
    "trapezoid": "volano.task",
    "verify": "volano.api",
}

__all__ = [
    "Arrays",
    "Device",
    "Duration",
    "Explanation",
    "Loss",
    "MemoryMapped",
    "Observer",
    "Plan",
    "Processes",
    "Run",
    "Safety",
    "Study",
    "Task",
    "VolanoError",
    "__version__",
    "constant",
    "cosine",
    "doctor",
    "explain",
    "explore",
    "linear",
    "open_table",
    "resume",
    "spool",
    "train",
    "trapezoid",
    "verify",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'volano' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
