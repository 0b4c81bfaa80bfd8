"""How many members a pack takes."""

from torch import nn

from volano.device import Device
from volano.packing.pack_size import pack_size
from volano.plan import Plan


def test_within_the_caches_on_a_cpu(make_task):
    task = make_task()
    size = pack_size(task, task.model(), Plan.baseline(), Device("cpu"))
    assert 8 <= size.members <= 32
    assert "caches" in size.reason


def test_within_the_memory_that_is_free(make_task):
    task = make_task(
        model=lambda: nn.Sequential(nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 10))
    )
    size = pack_size(task, task.model(), Plan.baseline(), Device("cpu"), free=24 * 2**20)
    # 300,000 parameters, each with gradient and two averages at most: 3.5 to 5 MB, and 85 % of 24
    # MiB.
    assert 3 <= size.members <= 6
    assert "fit the 24 MiB free" in size.reason
    assert pack_size(task, task.model(), Plan.baseline(), Device("cpu"), free=2**20).members == 1
