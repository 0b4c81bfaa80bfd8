"""A worker trains what it is assigned, whatever happens to one of the trials."""

import copy
import math
import weakref
from typing import ClassVar

import pytest
import torch
from optuna.trial import FixedTrial
from torch import nn

from conftest import assert_same, classification, classification_with_accuracy
from volano.errors import ExploreError, PlanError, UsageError
from volano.packing import Member, Pack, PackSize, choose_engine
from volano.study.workers import worker as workers
from volano.study.workers.messages import Assignment, Trial
from volano.study.workers.trial_tasks import step_of_rung
from volano.study.workers.worker import Worker, packs_to_keep


@pytest.fixture
def build(make_task):
    """Trials that differ in learning rate, dropout and width."""

    def build(trial):
        rate, dropout = (
            trial.suggest_float("lr", 0.0, 1e38),
            trial.suggest_float("dropout", 0.0, 1.0),
        )
        width = trial.suggest_categorical("width", [16, 32])

        def model():
            return nn.Sequential(
                nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 10)
            )

        return make_task(
            model=model,
            objective=classification_with_accuracy,
            optimizer=lambda params: torch.optim.SGD(params, lr=rate, momentum=0.9),
        )

    return build


def trial(number, state=None, *, lr=None, width=32):
    params = {
        "lr": 0.01 * (number + 1) if lr is None else lr,
        "dropout": 0.05 * number,
        "width": width,
    }
    return Trial(number=number, params=params, state=state)


def assignment(trials, share=1.0, number=0):
    return Assignment(number=number, trials=tuple(trials), share=share)


def by_number(report):
    return {outcome.number: outcome for outcome in report.outcomes}


class Counted(Pack):
    """Counts how many packs are made."""

    made = 0

    def __init__(self, *args, **kwargs):
        type(self).made += 1
        super().__init__(*args, **kwargs)


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(Counted, "made", 0)
    monkeypatch.setattr(workers, "Pack", Counted)
    return Counted


def alone(build, wanted):
    """What a trial's task learns in a pack of its own, from its beginning."""
    import optuna

    task = build(optuna.trial.FixedTrial(dict(wanted.params)))
    pack = Pack([Member(number=0, task=task)], device="cpu", engine="loop")
    pack.advance({0: task.num_steps})
    return pack.states()[0], pack.evaluate()[0]


class TestRungs:
    def test_outcomes_are_those_of_trials_alone(self, build):
        report = Worker(build, device="cpu", engine="loop").run(
            assignment([trial(n) for n in range(3)], number=5)
        )
        assert report.assignment == 5
        assert [outcome.number for outcome in report.outcomes] == [0, 1, 2]
        for outcome in report.outcomes:
            state, metrics = alone(build, trial(outcome.number))
            assert (outcome.step, outcome.epoch, outcome.failure) == (32, 2.0, None)
            assert outcome.metrics == metrics
            assert math.isfinite(outcome.training_loss)
            assert_same(outcome.state, state)

    def test_kinds_are_packs_of_their_own(self, build):
        trials = [trial(n, width=16 if n % 2 else 32) for n in range(4)]
        report = Worker(build, device="cpu").run(assignment(trials, share=0.5))
        assert [pack.numbers for pack in report.packs] == [(0, 2), (1, 3)]
        for pack in report.packs:
            assert pack.steps == 2 * 16
            assert pack.seconds > 0
            assert pack.evaluation_seconds > 0
            assert any("32" in reason and "16" in reason for reason in pack.apart)

    def test_survivors_go_on_in_their_pack(self, build, counted):
        worker = Worker(build, device="cpu", engine="loop")
        first = by_number(worker.run(assignment([trial(n) for n in range(4)], share=0.5)))
        second = worker.run(assignment([trial(n, first[n].state) for n in (1, 3)], number=1))
        assert counted.made == 1
        for outcome in second.outcomes:
            assert_same(outcome.state, alone(build, trial(outcome.number))[0])

    def test_a_new_worker_goes_on_from_the_states(self, build):
        first = by_number(
            Worker(build, device="cpu", engine="loop").run(
                assignment([trial(n) for n in range(3)], 0.5)
            )
        )
        second = Worker(build, device="cpu", engine="loop").run(
            assignment([trial(n, first[n].state) for n in (2, 0)])
        )
        assert [outcome.number for outcome in second.outcomes] == [2, 0]
        for outcome in second.outcomes:
            assert_same(outcome.state, alone(build, trial(outcome.number))[0])

    def test_a_living_pack_yields_to_what_the_assignment_says(self, build, counted):
        worker = Worker(build, device="cpu", engine="loop")
        first = by_number(worker.run(assignment([trial(0), trial(1)], share=0.5)))
        worker.run(assignment([trial(0, first[0].state), trial(1, first[1].state)]))
        # As after a lost answer.
        again = worker.run(assignment([trial(0, first[0].state), trial(1, first[1].state)]))
        assert counted.made == 2
        assert_same(again.outcomes[1].state, alone(build, trial(1))[0])
        changed = worker.run(assignment([trial(0, lr=0.5)]))  # the number of another study's trial
        assert_same(changed.outcomes[0].state, alone(build, trial(0, lr=0.5))[0])

    def test_few_survivors_of_several_packs_join(self, build, counted, monkeypatch):
        monkeypatch.setattr(
            workers, "pack_size", lambda *_: PackSize(members=3, reason="in this test")
        )
        worker = Worker(build, device="cpu", engine="loop")
        first = worker.run(assignment([trial(n) for n in range(8)], share=0.5))
        assert [pack.numbers for pack in first.packs] == [(0, 1), (2, 3, 4), (5, 6, 7)]
        states = {outcome.number: outcome.state for outcome in first.outcomes}
        second = worker.run(assignment([trial(n, states[n]) for n in (1, 3, 7)]))
        assert [pack.numbers for pack in second.packs] == [(1, 3, 7)]
        assert counted.made == 4
        for outcome in second.outcomes:
            assert_same(outcome.state, alone(build, trial(outcome.number))[0])

    def test_new_trials_beside_those_that_go_on(self, build):
        worker = Worker(build, device="cpu", engine="loop")
        first = by_number(worker.run(assignment([trial(0), trial(1)], share=0.5)))
        report = worker.run(assignment([trial(2), trial(1, first[1].state)]))
        assert [outcome.step for outcome in report.outcomes] == [32, 32]
        for outcome in report.outcomes:
            assert_same(outcome.state, alone(build, trial(outcome.number))[0])

    def test_states_that_are_given_stay_as_they_are(self, make_task):
        def build(trial):
            return make_task(
                optimizer=lambda params: torch.optim.AdamW(
                    params, trial.suggest_float("lr", 0.0, 1.0)
                )
            )

        def given(state=None):
            return assignment(
                [Trial(number=0, params={"lr": 0.01}, state=state)], share=1.0 if state else 0.5
            )

        state = Worker(build, device="cpu").run(given()).outcomes[0].state
        copied = copy.deepcopy(state)
        Worker(build, device="cpu").run(given(state))
        assert_same(state, copied)

    def test_states_come_where_they_are_wanted(self, build):
        wanted = Assignment(number=0, trials=(trial(0),), share=0.5, keep_states=False)
        assert Worker(build, device="cpu").run(wanted).outcomes[0].state is None

    def test_the_process_is_left_as_it_was(self, build):
        torch.manual_seed(1)
        expected = torch.rand(3)
        torch.manual_seed(1)
        Worker(build, device="cpu", threads=2).run(assignment([trial(0)], share=0.5))
        assert torch.equal(torch.rand(3), expected)


class TestFailures:
    def test_only_the_guilty_fails(self, make_task):
        def build(trial):
            rate = trial.suggest_float("lr", 0.0, 10.0)

            def objective(model, batch):
                if rate == 0.02 and model.training and next(model.parameters()).sum() != 0:
                    raise RuntimeError("this one\nfails")
                return classification(model, batch)

            return make_task(
                objective=objective, optimizer=lambda params: torch.optim.SGD(params, lr=rate)
            )

        worker = Worker(build, device="cpu")
        trials = [Trial(number=n, params={"lr": 0.01 * (n + 1)}) for n in range(3)]
        report = worker.run(assignment(trials))
        outcomes = by_number(report)
        assert outcomes[1].failure == "RuntimeError: this one"
        assert outcomes[1].state is None
        assert outcomes[1].metrics == {}
        for number in (0, 2):
            assert outcomes[number].failure is None
            assert outcomes[number].step == 32
            assert_same(outcomes[number].state, alone(build, trials[number])[0])
        assert len(report.packs) >= 1

    def test_build_that_raises(self, build):
        report = Worker(build, device="cpu").run(
            assignment([trial(0), trial(1, width=64), trial(2)], share=0.5)
        )
        assert [outcome.failure is None for outcome in report.outcomes] == [True, False, True]

    def test_a_loss_that_is_not_a_number_is_an_outcome(self, build):
        worker = Worker(build, device="cpu", engine="loop")
        report = worker.run(assignment([trial(0), trial(1, lr=1e38), trial(2)], share=0.5))
        outcomes = by_number(report)
        assert math.isnan(outcomes[1].training_loss)
        assert outcomes[1].failure is None
        assert set(outcomes[1].metrics) == {"loss", "accuracy"}
        assert math.isfinite(outcomes[0].training_loss)

    def test_other_data_stops_the_study(self, make_task, digits):
        def build(trial):
            size = trial.suggest_int("size", 100, 200)
            return make_task(
                data=torch.utils.data.TensorDataset(digits[0][:size], digits[1][:size])
            )

        trials = [Trial(number=n, params={"size": 100 + n}) for n in range(2)]
        with pytest.raises(ExploreError, match="same data"):
            Worker(build, device="cpu").run(assignment(trials))

    def test_settings_that_cannot_be_are_refused_at_birth(self, build):
        with pytest.raises(UsageError, match="device"):
            Worker(build, device="nowhere")
        with pytest.raises(PlanError, match="precision"):
            Worker(build, device="cpu", precision="fp16")


class Scarce(Counted):
    """A pack for which memory suffices for two members only."""

    def advance(self, until):
        if len(self.numbers) > 2:
            raise torch.OutOfMemoryError("no memory for so many\nof them")
        super().advance(until)


class TestMemory:
    @pytest.fixture
    def scarce(self, monkeypatch):
        monkeypatch.setattr(Scarce, "made", 0)
        monkeypatch.setattr(workers, "Pack", Scarce)
        return Scarce

    def test_a_pack_is_halved_until_it_fits(self, build, scarce):
        heard = []
        worker = Worker(build, device="cpu", engine="loop", on_notice=heard.append)
        report = worker.run(assignment([trial(n) for n in range(7)], share=0.5))
        assert [len(pack.numbers) for pack in report.packs] == [2, 2, 2, 1]
        assert all(outcome.failure is None and outcome.step == 16 for outcome in report.outcomes)
        assert list(report.notices) == heard
        assert "7 trials ran out of memory (no memory for so many)" in heard[0]
        made = scarce.made
        states = {outcome.number: outcome.state for outcome in report.outcomes}
        worker.run(assignment([trial(n, states[n]) for n in range(7)]))
        assert scarce.made <= made + 4  # what did not fit is not tried again

    def test_a_halved_pack_learns_the_same(self, build, scarce):
        report = Worker(build, device="cpu", engine="loop").run(
            assignment([trial(n) for n in range(3)])
        )
        for outcome in report.outcomes:
            assert_same(outcome.state, alone(build, trial(outcome.number))[0])

    def test_packs_at_rest_give_their_memory_first(self, build, monkeypatch):
        packs = []

        class Full(Pack):
            """There is room for one pack."""

            def __init__(self, *args, **kwargs):
                if any(pack() is not None for pack in packs):
                    raise torch.OutOfMemoryError("another pack has it")
                super().__init__(*args, **kwargs)
                packs.append(weakref.ref(self))

        monkeypatch.setattr(workers, "Pack", Full)
        trials = [trial(n, width=16 if n % 2 else 32) for n in range(4)]
        report = Worker(build, device="cpu", engine="loop").run(assignment(trials))
        assert [pack.numbers for pack in report.packs] == [(0, 2), (1, 3)]
        assert not report.notices

    def test_one_trial_that_does_not_fit_fails(self, build, monkeypatch):
        class TooLarge(Pack):
            def evaluate(self):
                raise torch.OutOfMemoryError("no memory at all")

        monkeypatch.setattr(workers, "Pack", TooLarge)
        report = Worker(build, device="cpu").run(assignment([trial(0), trial(1)], share=0.5))
        assert [outcome.failure for outcome in report.outcomes] == ["no memory at all"] * 2


class TestEngineThatFails:
    def test_the_plainest_engine_takes_over(self, build, monkeypatch):
        class Brittle(Counted):
            engines: ClassVar[list] = []

            def __init__(self, *args, engine=None, **kwargs):
                self.engines.append(engine)
                super().__init__(*args, engine=engine, **kwargs)

            def advance(self, until):
                if self.engines[-1] != "loop":
                    raise RuntimeError("a kernel that is not there")
                super().advance(until)

        monkeypatch.setattr(workers, "Pack", Brittle)
        worker = Worker(build, device="cpu")
        first = worker.run(assignment([trial(0), trial(1)], share=0.5))
        assert all(outcome.failure is None for outcome in first.outcomes)
        assert any("a kernel that is not there" in notice for notice in first.notices)
        states = {outcome.number: outcome.state for outcome in first.outcomes}
        second = worker.run(assignment([trial(n, states[n]) for n in (0, 1)]))
        assert Brittle.engines == [None, "loop", "loop", "loop"]
        assert [pack.numbers for pack in second.packs] == [(0, 1)]
        assert not second.notices


@pytest.mark.parametrize(
    ("sizes", "num", "most", "kept"),
    [
        ([3, 3, 2], 8, 4, 0),  # two packs do
        ([4, 3, 2], 9, 4, 3),
        ([4, 3, 2], 12, 4, 1),
        ([3], 3, 4, 1),
        ([3], 4, 4, 0),
        ([3], 5, 4, 1),
        ([], 5, 4, 0),
    ],
)
def test_packs_go_on_where_that_makes_no_more_of_them(sizes, num, most, kept):
    assert packs_to_keep(sizes, num, most) == kept


def _fast_if_lowered(engine, device, batches, **_):
    """As ``choose_engine.timed_steps``, where packed layers take no time and all else does."""
    return [engine.step(batch) for batch in batches], 1e-9 if engine.name == "lowered" else 1.0


class TestPrograms:
    def test_one_family_serves_the_packs_of_a_kind(self, build, monkeypatch):
        given = []

        class Watched(Pack):
            def __init__(self, *args, family=None, **kwargs):
                super().__init__(*args, family=family, **kwargs)
                given.append((family, self.family))

        monkeypatch.setattr(workers, "Pack", Watched)
        worker = Worker(build, device="cpu", engine="lowered")
        for first in (0, 2):
            report = worker.run(assignment([trial(first), trial(first + 1)], share=0.5))
            assert [pack.engine for pack in report.packs] == ["lowered"]
        assert given[0][0] is None
        assert given[1] == (given[0][1], given[0][1])

    def test_what_pays_is_seen_by_all_that_is_to_come(self, build, monkeypatch):
        told = []

        class Watched(Pack):
            def __init__(self, *args, num_steps=None, **kwargs):
                super().__init__(*args, num_steps=num_steps, **kwargs)
                told.append(num_steps)

        monkeypatch.setattr(workers, "Pack", Watched)
        wide = [trial(0), trial(1)]
        task = build(FixedTrial(dict(wide[0].params)))
        given = Assignment(number=0, trials=(*wide, trial(2, width=16)), share=0.5, runs_after=6.0)
        Worker(build, device="cpu", engine="loop").run(given)
        # Three trials now and twice as many whole runs later: each of the two packs will be made
        # twice more.
        assert told == [step_of_rung(task, 0.5) + 2 * task.num_steps] * 2

    def test_a_number_that_did_not_vary_before(self, build):
        worker = Worker(build, device="cpu", engine="lowered")
        same = [
            Trial(number=n, params={"lr": 0.1 * (n + 1), "dropout": 0.2, "width": 32})
            for n in range(2)
        ]
        worker.run(assignment(same, share=0.5))
        report = worker.run(assignment([trial(5), trial(6)], share=0.5))  # now dropout varies
        assert [pack.engine for pack in report.packs] == ["lowered"]
        assert not report.notices

    def test_what_was_measured_is_told(self, build):
        worker = Worker(build, device="cpu")
        (facts,) = worker.run(assignment([trial(0), trial(1)], share=0.5)).packs
        assert facts.engine == "loop"  # its steps are too few to look for another
        assert facts.solo_seconds_per_step is None
        assert facts.apart == ()
        assert "too few" in facts.refused["lowered"]

    def test_one_that_is_faster_is_compared_with_a_member_alone(self, build, monkeypatch):
        monkeypatch.setattr(choose_engine, "_LEAST_SHARE", 0)
        monkeypatch.setattr(choose_engine, "_WORTH_TRACING", 0.0)
        monkeypatch.setattr(choose_engine, "timed_steps", _fast_if_lowered)
        worker = Worker(build, device="cpu")
        report = worker.run(assignment([trial(0), trial(1)], share=0.5))
        (facts,) = report.packs
        assert facts.engine == "lowered"
        assert facts.solo_seconds_per_step > 0
        assert 0 < facts.startup_seconds < facts.seconds
        states = {outcome.number: outcome.state for outcome in report.outcomes}
        (facts,) = worker.run(assignment([trial(n, states[n]) for n in (0, 1)])).packs
        assert facts.startup_seconds == 0

    def test_a_structure_has_one_name_in_every_worker(self, build):
        def structures(*trials):
            packs = (
                Worker(build, device="cpu", engine="loop").run(assignment(trials, share=0.5)).packs
            )
            return {number: pack.structure for pack in packs for number in pack.numbers}

        wide, narrow, other = trial(0, width=32), trial(1, width=16), trial(2, width=32)
        one, another = structures(wide, narrow), structures(narrow, other)
        assert one[0] == another[2] != one[1] == another[1]
