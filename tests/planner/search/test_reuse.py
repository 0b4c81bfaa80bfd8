"""Plans that are taken up again, and what makes them others."""

import dataclasses
import json
import time

import pytest
import torch

from planner.searching import PLAIN, SlowIfNarrow, cache, make_task, search
from volano.data import WorkerChoice
from volano.plan import Plan
from volano.planner import PlanRequest
from volano.planner.cache.store import find_remembered, list_remembered, recall, remember
from volano.planner.search import choose_feed as feed_choice
from volano.planner.search import timing
from volano.planner.search.candidates import CandidateSpace
from volano.planner.search.reuse import recalled

pytestmark = pytest.mark.usefixtures("cache")
__all__ = ["cache"]


ONE_EACH = {
    "allocator": ("keep",),
    "optimizer": ("fused",),
    "compile": (False,),
    "prefix": ("computed",),
}


class TestSecondSearch:
    @pytest.fixture
    def first(self):
        return search(make_task(tolerance="rounding"))

    def again(self, monkeypatch, **fields):
        monkeypatch.setattr(timing, "TimingRun", None)  # would fail
        return search(make_task(**{"tolerance": "rounding", **fields}))

    def test_no_heats(self, first, monkeypatch):
        found = self.again(monkeypatch, name="another")
        assert found.plan == first.plan
        assert found.explanation.origin == "remembered"
        assert found.explanation.task == "another"
        assert found.step == first.step
        (kept,) = list_remembered()
        assert kept.fingerprint[:8] in found.reasons[-1] + found.reasons[0]
        assert find_remembered(kept.fingerprint[:6]).explanation.plan == first.plan

    def test_a_pin_to_the_value_of_plain_eager_is_kept(self):
        assert search().plan.precision == "bf16"
        found = search(pins={"precision": "fp32"})
        assert (found.plan.precision, found.explanation.origin) == ("fp32", "raced")
        found = search(pins={"precision": "fp32"})
        assert (found.plan.precision, found.explanation.origin) == ("fp32", "remembered")

    def test_what_the_space_has_no_more_is_not_taken_up(self):
        search()
        (kept,) = list_remembered()
        space = CandidateSpace(
            base=PLAIN.pin(feed="resident"),
            options={**ONE_EACH, "precision": ("fp32",)},
            refused=(),
        )
        found = recalled(kept.fingerprint, space, PlanRequest(), 50000)
        assert found is None or found.plan.precision == "fp32"
        wide = dataclasses.replace(space, options={**ONE_EACH, "precision": ("fp32", "bf16")})
        assert recalled(kept.fingerprint, wide, PlanRequest(), 50000).plan.precision == "bf16"

    def test_workers_of_now(self, monkeypatch):
        class Rows(torch.utils.data.Dataset):
            def __len__(self):
                return 512

            def __getitem__(self, index):
                return make_row(index)

        counts = iter([2, 1])
        monkeypatch.setattr(
            feed_choice,
            "choose_workers",
            lambda *_, **__: WorkerChoice(workers=next(counts), reason="so"),
        )
        task = make_task(data=Rows(), tolerance="rounding")
        assert search(task).plan.workers == 2
        monkeypatch.setattr(timing, "TimingRun", None)
        found = search(task)
        assert found.explanation.origin == "remembered"
        assert found.plan.workers == 1
        assert found.explanation.plan == found.explanation.candidates[0].plan == found.plan

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", '{"schema_version": 99}', '{"schema_version": 1}']
    )
    def test_a_damaged_file_is_planned_anew(self, first, text):
        (kept,) = list_remembered()
        kept.path.write_text(text)
        assert recall(kept.fingerprint) is None
        assert search(make_task(tolerance="rounding")).explanation.origin == "raced"
        assert list_remembered()

    def test_a_longer_run_tries_what_was_left(self, first):
        assert not any(c.status == "untried" for c in first.explanation.candidates)
        (kept,) = list_remembered()
        left = dataclasses.replace(
            first.explanation.candidates[-1], status="untried", measured=None
        )
        cut = dataclasses.replace(
            first.explanation, candidates=(*first.explanation.candidates[:-1], left)
        )
        assert remember(kept.fingerprint, cut) is None
        same = search(make_task(tolerance="rounding"))
        assert same.explanation.origin == "remembered"
        assert (
            search(make_task(tolerance="rounding", duration="110000st")).explanation.origin
            == "raced"
        )

    def test_what_was_struck_is_not_taken_up(self, first):
        (kept,) = list_remembered()
        struck = tuple(
            dataclasses.replace(c, status="struck") for c in first.explanation.candidates
        )
        assert (
            remember(kept.fingerprint, dataclasses.replace(first.explanation, candidates=struck))
            is None
        )
        assert search(make_task(tolerance="rounding")).explanation.origin == "raced"

    def test_start_up_is_weighed_anew(self, first, monkeypatch):
        (kept,) = list_remembered()
        chosen, *rest = first.explanation.candidates
        costly = dataclasses.replace(chosen, startup=1000.0)
        base = Plan.baseline("cpu").pin(feed="resident")
        plain = dataclasses.replace(
            rest[-1], plan=base, startup=0.0, status="slower", measured=2 * chosen.measured
        )
        assert (
            remember(
                kept.fingerprint, dataclasses.replace(first.explanation, candidates=(costly, plain))
            )
            is None
        )
        found = self.again(monkeypatch, duration="400st")
        assert found.plan == base
        assert [c.status for c in found.explanation.candidates] == ["chosen", "slower"]
        assert "does not pay in 400 steps" in found.explanation.candidates[1].reason
        assert found.explanation.candidates[0].reason == "the fastest for 400 steps"


def make_row(index):
    generator = torch.Generator().manual_seed(index)
    return torch.rand(64, generator=generator), torch.tensor(index % 10)


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = search(make_task(tolerance="rounding"))
    assert found.explanation.origin == "raced"
    assert any(reason.startswith("the plan could not be remembered") for reason in found.reasons)


def test_a_user_without_a_home(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", home)
    found = search(make_task(tolerance="rounding"))
    assert found.explanation.origin == "raced"
    assert any(reason.startswith("the plan could not be remembered") for reason in found.reasons)


def test_nothing_is_remembered_where_nobody_wants_it():
    search(make_task(tolerance="rounding"), recalls=False)
    search(make_task(model=SlowIfNarrow, duration="10st"))
    assert list_remembered() == []


def test_the_files_are_json(cache):
    search(make_task(tolerance="rounding"))
    (path,) = (cache / "plans").glob("*.json")
    record = json.loads(path.read_text())
    assert record["fingerprint"] == path.stem
    assert abs(record["created"] - time.time()) < 1e4
