"""Descriptions of earlier versions are compared by their own rule."""

import torch
from torch import nn

from volano.task.code_digest import CODE, code_of


def objective_with(scale, power=1):
    names = {"nn": nn, "SCALE": scale}
    source = "def made(model, batch):\n    return model(batch[0]).sum() * SCALE"
    exec(source + f" ** {power}", names)
    return names["made"]


class Net(nn.Linear):
    def forward(self, x):
        return super().forward(x)


def test_values_that_are_read_count_only_by_the_present_rule(make_task):
    model = Net(1, 1)
    tasks = [make_task(objective=objective_with(*one)) for one in ((2.0,), (3.0,), (2.0, 2))]
    now, before = ([code_of(task, model, form) for task in tasks] for form in (None, "2"))
    assert len({one["objective"] for one in now}) == 3
    assert before[0] == before[1] != before[2]
    assert now[0].keys() - {"python", "form"} == set(CODE)
    assert before[0].keys() == {"python", "form", "objective", "forward", "collate", "augment"}
    assert (now[0]["form"], before[0]["form"]) == ("3", "2")


def test_a_network_of_ones_own_has_its_forward_pass(make_task):
    task = make_task()
    assert code_of(task, Net(1, 1), "2") != code_of(task, torch.nn.Linear(1, 1), "2")
