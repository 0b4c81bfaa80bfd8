"""The tasks that are compared."""

from volano.benchmark.tasks import NUM_MEMBERS, bare, embedded_task, pack_tasks


def test_an_embedded_sample_without_evaluations():
    with embedded_task("image", 120) as task:
        assert (task.num_steps, task.valid, task.name) == (120, None, "image")


def test_members_differ_in_a_number_only():
    tasks = pack_tasks(10)
    assert len(tasks) == NUM_MEMBERS
    assert len({task.optimizer.keywords["lr"] for task in tasks}) == NUM_MEMBERS
    assert len({id(task.data) for task in tasks}) == 1
    assert bare(tasks[0], 7).num_steps == 7
