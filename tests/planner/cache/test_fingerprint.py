"""What makes a plan another one, and what does not."""

import functools

import pytest
import torch
from torch import nn

from planner.searching import SlowUnlessNarrow, make_task
from volano.device import Device
from volano.plan import Plan
from volano.planner.cache.fingerprint import fingerprint
from volano.planner.task_profile import profile_task


def other_objective(model, batch):
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels, label_smoothing=0.1)


class OtherCode(SlowUnlessNarrow):
    def forward(self, x):
        return super().forward(x) * 1.0


class SameName(SlowUnlessNarrow):
    pass


def key_of(task=None, *, forbidden=None, budget=None, world_size=1, pins=None):
    task = make_task() if task is None else task
    base = Plan.baseline("cpu").pin(**(pins or {}))
    profile = profile_task(task, Device("cpu"))
    return fingerprint(
        task,
        profile,
        base,
        pins=pins or {},
        forbidden=forbidden or {},
        budget=budget,
        world_size=world_size,
    )


class TestFingerprint:
    def test_what_costs_nothing_is_left_out(self):
        key = key_of()
        assert key == key_of()
        assert len(key) == 32
        assert key == key_of(make_task(seed=4, duration="7st", name="another"))
        assert key == key_of(
            make_task(optimizer=functools.partial(torch.optim.SGD, lr=0.3, momentum=0.5))
        )
        assert key == key_of(pins={"workers": 3})
        assert key == key_of(pins={"feed": "resident"})

    @pytest.mark.parametrize(
        "fields",
        [
            {"batch_size": 16},
            {"objective": other_objective},
            {"model": OtherCode},
            {"model": lambda: SlowUnlessNarrow(nn.Linear(64, 10))},
            {"optimizer": torch.optim.Adam},
            {"optimizer": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True)},
            {"clip_norm": 1.0},
            {"tolerance": "rounding"},
        ],
    )
    def test_of_the_task(self, fields):
        assert key_of(make_task(**fields)) != key_of()

    def test_code_of_a_class_of_the_same_name(self, monkeypatch):
        before = key_of(make_task(model=SameName))
        monkeypatch.setattr(SameName, "forward", lambda self, x: self.inner(x) + 1.0)
        assert key_of(make_task(model=SameName)) != before

    @pytest.mark.parametrize(
        "asked",
        [
            {"forbidden": {"precision": ("bf16",)}},
            {"budget": 10**9},
            {"world_size": 2},
            {"pins": {"precision": "bf16"}},
            {"pins": {"precision": "fp32"}},
            {"pins": {"compile": False}},
            {"pins": {"memory_format": "contiguous"}},
        ],
    )
    def test_of_the_wish(self, asked):
        assert key_of(**asked) != key_of()

    def test_under_a_budget_the_data_and_its_place_belong_to_it(self):
        key = key_of(budget=10**9)
        data = make_task().data
        assert key != key_of(
            make_task(data=torch.utils.data.Subset(data, range(256))), budget=10**9
        )
        assert key != key_of(budget=10**9, pins={"feed": "resident"})

    def test_of_the_versions(self, monkeypatch):
        before = key_of()
        module = __import__("volano.planner.cache.fingerprint", fromlist=["versions"])
        monkeypatch.setattr(module, "versions", lambda: {"torch": "9.9", "volano": "1"})
        assert key_of() != before
