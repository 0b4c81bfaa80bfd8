"""The trainings of which nothing is kept: they show what a task or a plan comes to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from volano.device import Device
from volano.device.random_state import random_state_kept
from volano.plan import Plan
from volano.task import Task
from volano.training.run import settings_of
from volano.training.session import Session


@contextmanager
def throwaway_settings(plan: Plan) -> Iterator[Device]:
    """A context in which the plan's settings hold; they and random state are put back."""
    device = Device(plan.device)
    with random_state_kept(device), settings_of(plan, device):
        yield device


@contextmanager
def throwaway_session(task: Task, plan: Plan) -> Iterator[Session]:
    """A context with a session at its first step; settings and random state are put back."""
    with throwaway_settings(plan):
        yield Session(task, plan)
