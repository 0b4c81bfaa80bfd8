"""What one of several ranks does."""

from planner.searching import PLAIN, make_task
from volano.device import num_cores
from volano.planner.search.per_rank import share_of_rank, share_of_threads


def test_one_rank_is_the_task_itself():
    task = make_task()
    assert share_of_rank(task, PLAIN, 1) == (task, PLAIN)


def test_a_part_of_the_batch_in_as_many_steps():
    task = make_task(duration="2ep")
    part, plan = share_of_rank(task, PLAIN, 4)
    assert part.batch_size == 8
    assert part.num_steps == task.num_steps == 32
    assert plan.threads == share_of_threads(4) == max(1, num_cores() // 4)


def test_pinned_threads_stand():
    assert share_of_rank(make_task(), PLAIN.pin(threads=5), 2)[1].threads == 5
