"""Steps that run out of memory: simulated above a number of examples, and for real under a limit of
the process."""

import functools
import json
import os
import random
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import volano
from children import PATIENCE_SECONDS
from conftest import assert_same, classification, experiment_records, make_mlp
from training.memory.test_recompute import ResNet
from volano import Plan
from volano.errors import RunError
from volano.training import RunFolder, Session, run_task
from volano.training.checkpoints.checkpoint import list_checkpoints, load_checkpoint
from volano.training.memory.out_of_memory import OutOfMemoryFallback, attempt, is_out_of_memory

HERE = Path(__file__).parent


class Scarce:
    """An objective that has no memory for more than ``most`` examples from call ``after`` on, and
    then fails late: when buffers have moved and random numbers are drawn."""

    def __init__(self, most, *, after=0, fails_in_backward=False):
        self.most, self.after, self.calls, self.failures = most, after, 0, 0
        self.fails_in_backward = fails_in_backward

    def __call__(self, model, batch):
        inputs, labels = batch
        noise = random.random() + float(np.random.rand()) + float(torch.rand(()))
        loss = nn.functional.cross_entropy(
            model(inputs * (1 + 0.1 * noise)), labels, reduction="none"
        )
        if model.training:
            self.calls += 1
            if len(labels) > self.most and self.calls > self.after:
                self.failures += 1
                if self.fails_in_backward:
                    loss.register_hook(run_out)
                else:
                    run_out()
        return volano.Loss(total=loss.sum(), weight=len(labels), metrics={})


def run_out(_gradient=None):
    raise torch.OutOfMemoryError("tried to allocate 1 GiB\nand more lines")


def shake(batch, generator):
    inputs, labels = batch
    return inputs + 0.1 * torch.rand(inputs.shape, generator=generator), labels


def new_folder(path):
    folder = RunFolder.reserve(path, "task")
    folder.make()
    return folder


def trained(task, plan, path, quiet, **arguments):
    return run_task(task, plan, new_folder(path), observer=quiet, **arguments)


def assert_same_experiment(one, other):
    assert experiment_records(one) == experiment_records(other)
    states = [
        load_checkpoint(list_checkpoints(path / "checkpoints")[-1])[1] for path in (one, other)
    ]
    for state in states:
        del state["plan"], state["task_digest"]
    assert_same(*states)


@pytest.mark.parametrize("fails_in_backward", [False, True], ids=["forward", "backward"])
def test_the_step_is_repeated_in_halves_and_the_rest_goes_on_so(
    make_task, quiet, tmp_path, fails_in_backward
):
    fields = {"model": functools.partial(make_mlp, dropout=0.3), "augment": shake, "clip_norm": 0.5}
    scarce = Scarce(10, fails_in_backward=fails_in_backward)
    task = make_task(objective=scarce, **fields)
    run = trained(task, Plan.baseline(), tmp_path / "relieved", quiet, may_split=True)
    assert scarce.failures == 2  # with 32 and with 16
    trained(
        make_task(objective=Scarce(32), **fields),
        Plan.baseline().pin(micro_batch=8),
        tmp_path / "pinned",
        quiet,
    )
    assert_same_experiment(tmp_path / "relieved", tmp_path / "pinned")
    assert run.plan.micro_batch == Plan.load(tmp_path / "relieved" / "plan.json").micro_batch == 8
    record = json.loads((tmp_path / "relieved" / "run.json").read_text())
    assert Plan.from_json(record["planned"]) == Plan.baseline()
    assert record["may_split"] is True
    assert record["reliefs"] == [
        {"step": 0, "knobs": {"micro_batch": size}, "reason": "tried to allocate 1 GiB"}
        for size in (16, 8)
    ]
    notice = "step 0 ran out of memory and is repeated with micro_batch=8: tried to allocate 1 GiB"
    assert notice in run.notices
    assert notice in quiet.notices


def test_later_steps_may_fail_and_a_resumed_run_stays_with_it(make_task, quiet, tmp_path):
    scarce = Scarce(20, after=5)
    run = trained(
        make_task(objective=scarce), Plan.baseline(), tmp_path / "run", quiet, may_split=True
    )
    assert scarce.failures == 1
    assert run.plan.micro_batch == 16
    assert json.loads((tmp_path / "run" / "run.json").read_text())["reliefs"][0]["step"] == 5


def test_a_batch_that_may_not_be_split_is_computed_with_less_kept(make_task, quiet, tmp_path):
    class Twice(Scarce):
        def __call__(self, model, batch):
            # Enough where blocks are recomputed.
            self.most = 32 if "forward" in model.layer1[0].__dict__ else 10
            return super().__call__(model, batch)

    task = make_task(model=ResNet, objective=Twice(10))
    run = trained(task, Plan.baseline(), tmp_path / "relieved", quiet, may_split=False)
    assert (run.plan.micro_batch, run.plan.recompute) == (None, "blocks")
    trained(
        make_task(model=ResNet, objective=Scarce(32)), Plan.baseline(), tmp_path / "plain", quiet
    )
    assert_same_experiment(tmp_path / "relieved", tmp_path / "plain")


@pytest.mark.parametrize(
    ("may_split", "model", "remedy"),
    [
        (
            None,
            make_mlp,
            "got tried to allocate 1 GiB .micro_batch=32, .*Pin `micro_batch` 16, if the loss",
        ),
        (False, make_mlp, "Take a smaller `batch_size`"),
        (True, ResNet, "micro_batch=1, recompute=blocks, offload=none.*Train a smaller model"),
    ],
)
def test_where_nothing_helps_the_error_says_what_is_missing(
    make_task, quiet, tmp_path, may_split, model, remedy
):
    task = make_task(model=model, objective=Scarce(0))
    with pytest.raises(RunError, match=remedy):
        trained(task, Plan.baseline(), tmp_path / "run", quiet, may_split=may_split)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("may_split", [True, False])
def test_what_nobody_knows_is_found_out_once_when_it_matters(may_split):
    asked = []
    relief = OutOfMemoryFallback(
        lambda: False, may_split=lambda: asked.append(1) or may_split, ranks=1
    )
    if not may_split:
        with pytest.raises(RunError, match="Take a smaller `batch_size`"):
            relief.after(Plan.baseline(), 64, "gone")
        return
    plan = relief.after(Plan.baseline(), 64, "gone")
    assert relief.after(plan, 64, "gone").micro_batch == 16
    assert asked == [1]


def test_several_ranks_stop_and_say_what_to_pin():
    # What this one's part of a micro-batch was; the others wait in a collective operation by now.
    relief = OutOfMemoryFallback(lambda: pytest.fail("nothing is changed"), may_split=True, ranks=4)
    with pytest.raises(RunError, match="got gone .micro_batch=16, .*Pin `micro_batch` 8"):
        relief.after(Plan.baseline().pin(micro_batch=16), 64, "gone")


def test_an_update_that_runs_out_is_not_repeated(make_task, quiet, tmp_path):
    class Greedy(torch.optim.SGD):
        def step(self, closure=None):
            run_out()

    task = make_task(optimizer=functools.partial(Greedy, lr=0.1))
    with pytest.raises(RunError, match="half done.*got tried to allocate 1 GiB.*`optimizer` fused"):
        trained(task, Plan.baseline(), tmp_path / "run", quiet, may_split=True)


def test_a_batch_that_was_changed_in_place_is_not_repeated(make_task, quiet, tmp_path):
    def objective(model, batch):
        batch[0].mul_(2)
        run_out()

    with pytest.raises(RunError, match="leaves its inputs unchanged; got a batch"):
        trained(
            make_task(objective=objective), Plan.baseline(), tmp_path / "run", quiet, may_split=True
        )


def test_a_session_alone_lets_the_error_through(make_task):
    session = Session(
        make_task(objective=Scarce(0)), Plan.baseline(), on_notice=lambda _: None, may_split=True
    )
    with pytest.raises(torch.OutOfMemoryError):
        session.step_once(next(iter(session.feed.batches(session.order.keys(0, 1)))), 0)


def test_other_errors_are_not_taken_for_it():
    too_much = 2**50
    with pytest.raises(RuntimeError) as caught:
        torch.empty(too_much)
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(too_much * 2**6)
    assert is_out_of_memory(of_numpy.value)
    assert is_out_of_memory(torch.OutOfMemoryError("none"))
    assert is_out_of_memory(RuntimeError("std::bad_alloc"))
    assert is_out_of_memory(
        RuntimeError(
            "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"
        )
    )
    for text in (
        "GET was unable to find an engine to execute this computation",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "NCCL error: unhandled cuda error. Last error: Cuda failure 2 'out of memory'",
        "Triton Error [CUDA]: out of memory",
        "CUDA driver error: out of memory",
    ):
        assert is_out_of_memory(RuntimeError(text)), text
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator: "))
    with pytest.raises(ZeroDivisionError):
        attempt(lambda: 1 / 0)


@pytest.mark.parametrize("free", [None, 2**20, 2**34])
def test_a_handle_that_cannot_be_made_is_lack_of_memory_if_there_is_little(free, monkeypatch):
    monkeypatch.setattr(volano.Device, "free_bytes", lambda _: free)
    error = RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling cublasCreate")
    assert is_out_of_memory(error) == (free == 2**20)


def test_what_failed_keeps_nothing_alive():
    kept = []

    def work():
        large = torch.rand(1000)
        kept.append(weakref.ref(large))
        run_out()

    assert attempt(work) == (None, "tried to allocate 1 GiB")
    assert kept[0]() is None


def test_it_survives_a_real_lack_of_memory(tmp_path):
    child = subprocess.run(
        [sys.executable, str(HERE / "scarce.py"), str(tmp_path)],
        # The limit counts what a heap spans, free or not: blocks are mapped one by one, and given
        # back when freed.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "131072"},
        capture_output=True, text=True, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr[-3000:]
    result = json.loads(child.stdout.splitlines()[-1])
    assert result["micro_batch"] < result["batch_size"]
    assert "DefaultCPUAllocator" in result["reason"]
    assert result["is_same"]


def test_the_objective_of_these_tests_is_the_usual_one(make_task):
    # The control: where there is memory, Scarce's loss is the mean of its parts.
    session = Session(make_task(objective=Scarce(99)), Plan.baseline(), on_notice=lambda _: None)
    batch = next(iter(session.feed.batches(session.order.keys(0, 1))))
    assert session.step_once(batch, 0).loss == pytest.approx(
        classification(Session.make_model(session.task), batch).item(), rel=0.1
    )
