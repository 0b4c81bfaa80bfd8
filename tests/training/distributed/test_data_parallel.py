"""Two ranks train as one process does."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import children
import volano
from training.distributed import on_ranks
from volano.device import Ranks
from volano.errors import PlanError, UsageError
from volano.training.distributed.data_parallel import check_ranks

# Sums of 32 float64 numbers taken in another order, over tens of steps of Adam, which divides by
# small roots: on processors with other widths of vectors, 1.4e-11 was met.
CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(left: Path, right: Path) -> None:
    mine, theirs = load_file(left / "model.safetensors"), load_file(right / "model.safetensors")
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(
            tensor, theirs[name], **CLOSE, msg=lambda text, name=name: f"{name}: {text}"
        )
    mine_lines, their_lines = lines(left), lines(right)
    assert len(mine_lines) == len(their_lines)
    timing = {"examples_per_second", "memory_bytes", "data_wait_share"}
    for mine_line, their_line in zip(mine_lines, their_lines, strict=True):
        assert mine_line.keys() == their_line.keys()
        for key in mine_line.keys() - timing:
            # Logged scalars are read as float32.
            assert mine_line[key] == pytest.approx(their_line[key], rel=1e-6), key


CHANGING = ["weighted", "sharded", "hybrid"]  # they go on under other numbers of ranks


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case, trained by two ranks."""
    out = tmp_path_factory.mktemp("two")
    children.on_ranks(2, out, on_ranks.train, out, on_ranks.CASES, CHANGING)
    return out


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``alone(name)``: the folder of the case that this process has trained."""
    out = tmp_path_factory.mktemp("one")

    @functools.cache
    def run_of(name: str) -> Path:
        task, plan = on_ranks.case(name)
        return volano.train(task, plan=plan, out=out / name, observer=volano.Observer()).path

    return run_of


@pytest.mark.parametrize("name", on_ranks.CASES)
def test_two_ranks_train_as_one_process_does(two_ranks, alone, name):
    assert_same_run(two_ranks / name, alone(name))
    record = json.loads((two_ranks / name / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["world_size"] == 2


def test_runs_go_on_under_another_number_of_ranks(two_ranks, alone):
    """Two ranks, one process, two ranks again."""
    for name in CHANGING:
        path = two_ranks / "stopped" / name
        assert json.loads((path / "run.json").read_text())["status"] == "stopped"
        task, _ = on_ranks.case(name)
        stopped = volano.resume(path, task=task, observer=on_ranks.StopAfter(8))
        assert stopped.status == "stopped"
    children.on_ranks(2, two_ranks, on_ranks.resume, two_ranks, CHANGING)
    for name in CHANGING:
        assert_same_run(two_ranks / "stopped" / name, alone(name))


@pytest.mark.slow
@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")
def test_two_ranks_compile_together(tmp_path, alone):
    children.on_ranks(2, tmp_path, on_ranks.train, tmp_path, on_ranks.COMPILED, [])
    for name, eager in (("compiled", "weighted"), ("compiled-blocks", None)):
        assert_same_run(tmp_path / name, alone(eager or name))


@pytest.mark.slow
@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")
def test_two_ranks_train_under_a_compiled_plan_that_one_has_raced(tmp_path, alone, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    children.on_ranks(2, tmp_path, on_ranks.race, tmp_path)
    assert json.loads((tmp_path / "raced" / "plan.json").read_text())["compile"]
    assert_same_run(tmp_path / "raced", alone("weighted"))


def test_ranks_take_equal_parts(make_task):
    check_ranks(make_task(batch_size=32), volano.Plan.baseline(), 4)
    with pytest.raises(
        PlanError, match="number of ranks must divide the batch.*got 3 ranks and batch_size=32"
    ):
        check_ranks(make_task(batch_size=32), volano.Plan.baseline(), 3)
    kept = make_task(batch_size=30, last_batch="keep")  # 512 = 17 * 30 + 2
    check_ranks(kept, volano.Plan.baseline(), 2)
    with pytest.raises(PlanError, match="3 ranks and the epoch's last batch=2"):
        check_ranks(kept, volano.Plan.baseline(), 3)


def test_ranks_are_what_torchrun_says(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Ranks.from_environment() == Ranks(rank=0, world_size=1, local_rank=0)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="need RANK, WORLD_SIZE, LOCAL_RANK.*torchrun"):
        Ranks.from_environment()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    ranks = Ranks.from_environment()
    assert (ranks.rank, ranks.world_size, ranks.local_rank, ranks.is_first) == (3, 4, 1, False)


def test_a_rank_needs_an_accelerator_of_its_own(make_task, monkeypatch):
    from volano.device import Device
    from volano.training import Session

    monkeypatch.setattr(Device, "count", staticmethod(lambda: 2))
    made = Device.__init__

    def as_accelerator(self, name=None):
        made(self, name)
        self.is_cpu = False

    monkeypatch.setattr(Device, "__init__", as_accelerator)
    with pytest.raises(PlanError, match="accelerator of its own; got rank 2 of this machine, .* 2"):
        Session(
            make_task(batch_size=32), volano.Plan.baseline(),
            ranks=Ranks(rank=2, world_size=4, local_rank=2),
        )  # fmt: skip


def test_whole_machines_share_a_hybrid_model():
    from volano.device import Device
    from volano.training.distributed.data_parallel import shard

    for ranks in (Ranks(world_size=4), Ranks(world_size=4, per_node=3)):
        with pytest.raises(PlanError, match="machines of equally many ranks; got 4 ranks"):
            shard(torch.nn.Linear(2, 2), Device("cpu"), ranks, "hybrid")


def test_ranks_share_statistics_by_themselves_and_no_other_buffers():
    from volano.training.distributed.data_parallel import has_own_buffers

    assert not has_own_buffers(torch.nn.Sequential(torch.nn.SyncBatchNorm(3)))
    assert has_own_buffers(torch.nn.Sequential(torch.nn.BatchNorm1d(3)))


def test_a_single_process_agrees_with_itself():
    ranks = Ranks()
    assert ranks.agreement()(True, False) == [True, False]
    assert ranks.largest([1.5, -2.0]) == [1.5, -2.0]
    assert ranks.tell("here") == "here"
    assert ranks.union(["b", "a", "b"]) == ["b", "a"]
    assert torch.equal(ranks.add_up(torch.ones(2)), torch.ones(2))
