"""Volano: say what to train; Volano plans how.

The public door. Names are loaded at first use, so that ``import volano`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from volano.api.bench import bench
    from volano.api.doctor import doctor
    from volano.api.explain import explain
    from volano.api.explore import explore
    from volano.api.train import load, resume, train
    from volano.api.verify import verify
    from volano.apps.application import Application, Finished, Fitted, Table, TrainedModel
    from volano.apps.image.options import ImageOptions
    from volano.apps.options import Options, option
    from volano.apps.text.options import TextOptions
    from volano.apps.video.options import VideoOptions
    from volano.data import Arrays, MemoryMapped, open_table, spool
    from volano.device import Device
    from volano.errors import VolanoError
    from volano.integrations.from_lightning import from_lightning
    from volano.integrations.from_trainer import from_trainer
    from volano.plan import Plan
    from volano.planner import Explanation
    from volano.running.processes import Processes
    from volano.script.plan import ScriptPlan
    from volano.script.prepare import advise, prepare
    from volano.study import Study
    from volano.task import Duration, Loss, Task, constant, cosine, linear, trapezoid
    from volano.training import Observer, Run, Safety

_HOMES = {
    "Application": "volano.apps.application",
    "Arrays": "volano.data",
    "Device": "volano.device",
    "Duration": "volano.task",
    "Explanation": "volano.planner",
    "Finished": "volano.apps.application",
    "Fitted": "volano.apps.application",
    "ImageOptions": "volano.apps.image.options",
    "Loss": "volano.task",
    "MemoryMapped": "volano.data",
    "Observer": "volano.training",
    "Options": "volano.apps.options",
    "Plan": "volano.plan",
    "Processes": "volano.running.processes",
    "Run": "volano.training",
    "Safety": "volano.training",
    "ScriptPlan": "volano.script.plan",
    "Study": "volano.study",
    "Table": "volano.apps.application",
    "Task": "volano.task",
    "TextOptions": "volano.apps.text.options",
    "TrainedModel": "volano.apps.application",
    "VideoOptions": "volano.apps.video.options",
    "VolanoError": "volano.errors",
    "advise": "volano.script.prepare",
    "bench": "volano.api.bench",
    "constant": "volano.task",
    "cosine": "volano.task",
    "doctor": "volano.api.doctor",
    "explain": "volano.api.explain",
    "explore": "volano.api.explore",
    "from_lightning": "volano.integrations.from_lightning",
    "from_trainer": "volano.integrations.from_trainer",
    "linear": "volano.task",
    "load": "volano.api.train",
    "open_table": "volano.data",
    "option": "volano.apps.options",
    "prepare": "volano.script.prepare",
    "resume": "volano.api.train",
    "spool": "volano.data",
    "train": "volano.api.train",
    "trapezoid": "volano.task",
    "verify": "volano.api.verify",
}

__all__ = [
    "Application",
    "Arrays",
    "Device",
    "Duration",
    "Explanation",
    "Finished",
    "Fitted",
    "ImageOptions",
    "Loss",
    "MemoryMapped",
    "Observer",
    "Options",
    "Plan",
    "Processes",
    "Run",
    "Safety",
    "ScriptPlan",
    "Study",
    "Table",
    "Task",
    "TextOptions",
    "TrainedModel",
    "VideoOptions",
    "VolanoError",
    "__version__",
    "advise",
    "bench",
    "constant",
    "cosine",
    "doctor",
    "explain",
    "explore",
    "from_lightning",
    "from_trainer",
    "linear",
    "load",
    "open_table",
    "option",
    "prepare",
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
