"""Waiting for data is told with what helps, and only with what helps."""

import pytest
import torch

from volano import Plan
from volano.device import Device
from volano.training.health import data_stalls
from volano.training.health.data_stalls import DataStalls


class Computed(torch.utils.data.Dataset):
    """Examples from a dataset that cannot be resident."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


@pytest.fixture
def heard(make_task, monkeypatch):
    def listen(shares, *, computed=True, cores=4, **knobs):
        """Notices of a run that logs every 100 steps of 20 ms, of which these shares are spent in
        waiting."""
        monkeypatch.setattr(data_stalls, "num_cores", lambda: cores)
        task, notices = make_task(), []
        if computed:
            task = make_task(data=Computed(task.data))
        listener = DataStalls(task, Plan.baseline().pin(**knobs), Device("cpu"), 0, notices.append)
        for index, share in enumerate(shares):
            listener.look(
                {
                    "step": 100 * (index + 1),
                    "examples_per_second": 32 / 0.02,
                    "data_wait_share": share,
                }
            )
        told = len(notices)
        listener.finish()
        return notices[:told], notices[told:]

    return listen


def test_it_tells_once_during_the_run_and_at_the_end(heard):
    during, after = heard([0.9, *[0.6] * 5])
    facts = (
        "60% of the time for data: a batch takes 12.0 ms to make and takes 8.00 ms to train on; "
        "0 workers of 4 cores; workers=2"
    )
    assert during == [f"the device waits {facts}"]
    assert after == [f"the device waited {facts}"]


@pytest.mark.parametrize(
    ("facts", "ends"),
    [
        (
            {"workers": 1},
            "a batch comes every 20.0 ms and takes 8.00 ms to train on; 1 worker of 4 cores; "
            "workers=3",
        ),
        ({"workers": 3}, "no knob of the plan would change it: make fetching an example cheaper"),
        (
            {"cores": 1},
            "0 workers of 1 core; no knob of the plan would change it: make fetching an example "
            "cheaper",
        ),
        ({"computed": False}, "0 workers of 4 cores; feed=resident"),
        (
            {"computed": False, "feed": "resident"},
            "no knob of the plan would change it: make fetching an example cheaper",
        ),
    ],
)
def test_only_what_helps_is_named(heard, facts, ends):
    _, (notice,) = heard([0.6] * 4, **facts)
    assert notice.endswith(ends)


def test_little_waiting_is_not_worth_a_line(heard):
    assert heard([0.9, *[0.04] * 50]) == ([], [])
    assert heard([0.9, 0.3]) == ([], [])  # 0.6 of a second
    assert heard([0.9, *[0.3, 0.3, 0.1] * 5])[0] == []
