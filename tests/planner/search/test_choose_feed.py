"""Where batches come from: kept on the device or streamed, and by how many workers."""

import pytest
import torch

from planner.searching import PLAIN, make_task
from volano.data import WorkerChoice
from volano.errors import PlanError
from volano.planner.search import choose_feed as feed_choice
from volano.planner.search.choose_feed import choose_feed

BYTES = 512 * (64 * 4 + 8)


class Rows(torch.utils.data.Dataset):
    """Rows that are made one by one."""

    def __len__(self):
        return 512

    def __getitem__(self, index):
        return torch.ones(64), torch.tensor(index % 10)


@pytest.fixture
def asked(monkeypatch):
    """What the measuring of workers is asked; it answers 3."""
    calls = []

    def choose_workers(_data, _collate, batch_size, cores, **_):
        calls.append((batch_size, cores))
        return WorkerChoice(workers=3, reason="so it was measured")

    monkeypatch.setattr(feed_choice, "choose_workers", choose_workers)
    monkeypatch.setattr(feed_choice, "num_cores", lambda: 8)
    return calls


def test_tensors_are_kept_on_the_device_without_workers(asked):
    plan, reasons = choose_feed(make_task(), PLAIN, {})
    assert (plan.feed, plan.workers, reasons, asked) == ("resident", 0, [], [])


def test_a_resident_feed_says_that_pinned_workers_have_no_effect(asked):
    plan, reasons = choose_feed(make_task(), PLAIN.pin(workers=2), {"workers": 2})
    assert plan.workers == 0
    assert reasons == ["workers=2 has no effect: a resident feed needs none"]


def test_rows_are_streamed_by_as_many_workers_as_were_measured(asked):
    plan, reasons = choose_feed(make_task(data=Rows()), PLAIN, {})
    assert (plan.feed, plan.workers) == ("ring", 3)
    assert reasons[0].startswith("feed=ring: ")
    assert reasons[1] == "workers=3: so it was measured"
    assert asked == [(32, 8)]


def test_ranks_share_the_batch_and_the_cores(asked):
    choose_feed(make_task(data=Rows()), PLAIN, {}, world_size=4)
    choose_feed(make_task(data=Rows()), PLAIN, {}, world_size=100)
    assert asked == [(8, 2), (1, 1)]


@pytest.mark.parametrize("valid", [None, Rows()])
def test_held_out_data_is_kept_with_the_rest_or_not_at_all(asked, valid):
    plan, _ = choose_feed(make_task(valid=valid), PLAIN, {})
    assert plan.feed == ("resident" if valid is None else "ring")


def test_data_of_more_than_half_a_budget_is_streamed(asked):
    assert choose_feed(make_task(), PLAIN, {}, budget=2 * BYTES)[0].feed == "resident"
    plan, reasons = choose_feed(make_task(), PLAIN, {}, budget=2 * BYTES - 1)
    assert plan.feed == "ring"
    assert reasons[0] == f"feed=ring: {BYTES:,} bytes of data are more than half of the budget"


def test_a_forbidden_feed_is_not_chosen(asked):
    plan, reasons = choose_feed(make_task(), PLAIN, {}, forbidden={"feed": ("resident",)})
    assert plan.feed == "ring"
    assert reasons[0] == "feed=ring: resident is forbidden by you"
    with pytest.raises(PlanError, match="feed=ring forbidden"):
        choose_feed(make_task(data=Rows()), PLAIN, {}, forbidden={"feed": ("ring",)})
    with pytest.raises(PlanError, match="workers=3 forbidden.*so it was measured"):
        choose_feed(make_task(data=Rows()), PLAIN, {}, forbidden={"workers": (3,)})


def test_pins_stand(asked):
    pins = {"feed": "ring", "workers": 1}
    plan, reasons = choose_feed(make_task(), PLAIN.pin(**pins), pins)
    assert (plan.feed, plan.workers, reasons, asked) == ("ring", 1, [], [])
