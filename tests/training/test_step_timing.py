import pytest

from volano import Plan
from volano.training import StepTimer, measure_step_time, step_timing


class Clock:
    """Seconds that pass as steps are made: the first takes 5, the second 3, all others 1."""

    def __init__(self):
        self.now, self.num_made = 100.0, 0

    def perf_counter(self):
        return self.now

    def make_step(self):
        self.now += {0: 5.0, 1: 3.0}.get(self.num_made, 1.0)
        self.num_made += 1


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(step_timing, "time", made)
    return made


def test_the_median_counts_and_the_start_is_told_apart(clock):
    timer = StepTimer(clock.make_step, lambda: None, begun=98.0)
    timer.warm_up()
    assert (timer.step, timer.startup) == (3.0, 4.0)  # no better is known yet
    clock.now += 50.0  # somebody else's
    timer.run(3.0)
    assert (timer.step, timer.startup, timer.num_steps) == (1.0, 8.0, 3)


def test_a_block_is_made_at_least_and_one_that_is_skipped_does_not_count(clock):
    timer = StepTimer(clock.make_step, lambda: None, begun=100.0, block_seconds=6.0)
    timer.warm_up()
    timer.skip_block()
    assert (clock.num_made, timer.num_steps) == (4, 0)
    timer.run(0.0)
    assert (clock.num_made, timer.num_steps) == (6, 2)  # of 3 s each, as far as was known
    timer.run(0.0)
    assert (clock.num_made, timer.num_steps) == (12, 8)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_a_task_of_few_steps_can_be_timed(make_task, num_steps):
    found = measure_step_time(
        make_task(duration=f"{num_steps}st", valid=None), Plan.baseline(), seconds=60.0
    )
    assert found.step > 0
    assert found.startup >= 0


def test_no_further_step_is_begun_after_the_seconds_that_there_are(make_task):
    made = []

    def objective(model, batch):
        made.append(1)
        return model(batch[0]).square().mean()

    task = make_task(duration="9st", valid=None, objective=objective)
    found = measure_step_time(task, Plan.baseline(), seconds=60.0, most_seconds=0.0)
    assert (len(made), found.step > 0) == (1, True)
