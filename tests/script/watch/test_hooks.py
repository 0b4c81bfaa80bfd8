"""Torch, watched in this process."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from script.loops import LOOPS
from volano.script.watch.call_sites import CallSites
from volano.script.watch.hooks import EnoughStepsError, TorchHooks
from volano.script.watch.step_recorder import ObservationLimits, StepRecorder


class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        time.sleep(0.002)
        return torch.full((4,), float(index)), 0


def make_hooks(steps=4):
    limits = ObservationLimits(warmup_steps=1, steps=steps)
    recorder = StepRecorder(limits)
    return TorchHooks(recorder, CallSites([Path(__file__).parent]), lambda: None), recorder


def train(seen):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    loader = DataLoader(Slow(), batch_size=4)
    for inputs, labels in loader:  # the line of the waits
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())  # the line of the reads


def line_of(text):
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_planted_waits_are_found_with_file_and_line_and_all_time_has_a_name():
    hooks, recorder = make_hooks()
    seen = []
    with hooks.installed(), pytest.raises(EnoughStepsError):
        train(seen)
    assert len(seen) == 4  # stopped in the fifth step
    record = recorder.to_json()
    parts = {part["part"]: part for part in record["parts"]}
    assert parts["data"]["line"] == line_of("# the line of the waits")
    assert parts["data"]["seconds"] >= 0.008
    assert parts["read"]["line"] == line_of("# the line of the reads")
    assert parts["read"]["count"] == 1  # not AdamW's, which read the host's memory
    assert {"forward", "backward", "optimizer"} <= parts.keys()
    assert sum(p["seconds"] for p in record["parts"]) == pytest.approx(record["step_seconds"])
    assert all(part["file"] == __file__ for part in record["parts"])
    (loader,) = hooks.described()["loaders"]
    assert loader["dataset_place"] == (__file__, line_of("def __getitem__"))
    assert hooks.described()["model"] == "Sequential"


def test_hooks_change_no_number_and_leave_nothing_behind():
    before = nn.Module.__call__, torch.Tensor.backward, torch.Tensor.item, DataLoader.__iter__
    alone, watched = [], []
    train(alone)
    hooks, _ = make_hooks(steps=1000)
    with hooks.installed():
        train(watched)
    assert watched == alone
    assert hooks.first_steps.losses() == alone
    after = nn.Module.__call__, torch.Tensor.backward, torch.Tensor.item, DataLoader.__iter__
    assert after == before
    assert "item" not in vars(torch.Tensor)


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_loops_of_every_kind_are_watched_and_keep_their_numbers(loop):
    alone = loop()
    hooks, recorder = make_hooks(steps=1000)
    with hooks.installed():
        assert loop() == alone
    record = recorder.to_json()
    steps = {"accumulated": 3, "evaluated": 4}.get(loop.__name__, 6)
    assert recorder.num_steps == steps
    assert record["num_optimizers"] == (2 if loop.__name__ == "two_optimizers" else 1)
    assert (record["evaluation_seconds"] > 0) == (loop.__name__ == "evaluated")
    parts = {part["part"] for part in record["parts"]}
    assert {"data", "forward", "backward", "optimizer", "read"} <= parts
    assert sum(p["seconds"] for p in record["parts"]) == pytest.approx(record["step_seconds"])


class Wrapping(torch.optim.Optimizer):
    """An optimizer that makes its step by another's."""

    def __init__(self, inner):
        super().__init__(inner.param_groups, {})
        self.inner = inner

    def step(self, closure=None):
        self.inner.step(closure)


def test_methods_of_a_model_are_its_parts_and_an_optimizer_within_another_is_none_of_its_own():
    hooks, recorder = make_hooks(steps=1000)
    first, second = nn.Linear(4, 32), nn.Conv2d(2, 2, 3)
    parameters = [*first.parameters(), *second.parameters()]
    with hooks.installed():
        optimizer = Wrapping(torch.optim.SGD(parameters, lr=0.1))
        for _ in range(5):
            second(first(torch.ones(2, 4)).view(2, 2, 4, 4)).sum().backward()
            optimizer.step()
    about = hooks.described()
    assert (recorder.num_steps, recorder.num_optimizers) == (5, 1)
    assert about["model"] == "Linear, Conv2d"
    assert about["num_parameters"] == 198
    assert about["has_convolutions"]
    assert not about["is_channels_last"]


def test_a_script_that_catches_everything_is_ended_with_its_process():
    ended = []
    hooks, recorder = make_hooks(steps=1)
    hooks._end_process = lambda: ended.append(1)
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    with hooks.installed():
        for _ in range(7):
            parameter.grad = torch.ones(2)
            try:
                optimizer.step()
            except BaseException:  # noqa: BLE001 - what this is about
                continue
    assert recorder.num_steps == 2
    assert len(ended) >= 1


def test_a_model_under_a_compiler_is_traced_as_if_there_were_no_hooks():
    hooks, _ = make_hooks()
    with hooks.installed():
        model = torch.compile(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), backend="eager")
        graphs = torch._dynamo.explain(model)(torch.ones(2, 4))
    assert graphs.graph_break_count == 0


def steps_of(loss_of, parameters, count=3, make=torch.optim.SGD):
    optimizer = make(parameters, lr=0.1)
    for _ in range(count):
        optimizer.zero_grad()
        loss_of().backward()
        optimizer.step()


def test_lazy_modules_and_sparse_gradients():
    hooks, recorder = make_hooks(steps=1000)
    table, net = nn.Embedding(8, 4, sparse=True), nn.LazyLinear(2)
    with hooks.installed():
        net(torch.ones(1, 4))
        steps_of(lambda: net(table(torch.tensor([1, 1, 5]))).sum(), [table.weight, net.weight])
    assert recorder.num_steps == 3
    assert hooks.facts["model"] == "Linear, Embedding"
    assert hooks.first_steps._gradients["gradient.0.0"].shape == (8,)  # of two rows


def test_a_closures_gradient_is_the_first_one():
    hooks, _ = make_hooks(steps=1000)
    with hooks.installed():
        next(loop for loop in LOOPS if loop.__name__ == "closures")()
    assert len(hooks.first_steps._gradients) == len(hooks.first_steps._updates) > 0


def test_planes_of_one_channel_are_not_taken_for_channels_last():
    hooks, _ = make_hooks(steps=1000)
    with hooks.installed():
        nn.Conv2d(1, 4, 3)(torch.ones(1, 1, 8, 8))
        assert not hooks.facts["is_channels_last"]
    hooks, _ = make_hooks(steps=1000)
    with hooks.installed():
        nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last)(torch.ones(1, 2, 8, 8))
        assert hooks.facts["is_channels_last"]


def test_a_teacher_is_a_part_of_the_steps_and_an_evaluation_none():
    hooks, recorder = make_hooks(steps=1000)
    student, teacher, x = nn.Linear(4, 4), nn.Linear(4, 4).eval(), torch.ones(2, 4)

    def loss():
        student.eval()
        with torch.no_grad():
            wanted = teacher(x)  # the teacher's line
            student(x)
        student.train()
        return (student(x) - wanted).square().mean()

    with hooks.installed():
        steps_of(loss, student.parameters(), count=5)
    record = recorder.to_json()
    lines = {part["line"] for part in record["parts"] if part["part"] == "forward"}
    assert line_of("# the teacher's line") in lines
    assert record["evaluation_seconds"] > 0


def test_loaders_are_told_apart_after_others_have_gone():
    hooks, _ = make_hooks(steps=1000)
    net = nn.Linear(4, 2)
    with hooks.installed():
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(4):  # folds
            loader = DataLoader(torch.ones(4, 4), batch_size=2)
            never_read = DataLoader(torch.ones(3, 4))
            for x in loader:
                net(x).sum().backward()
                optimizer.step()
    (about,) = hooks.described()["loaders"]
    assert about["batch_size"] == 2
    assert never_read.dataset is not None


class Counting(Slow):
    def __init__(self):
        self.reads = self.opened = 0

    def __getitem__(self, index):
        self.opened = 1  # as files are, when they are needed first
        return torch.ones(4)


class Counted(Counting):
    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def test_a_dataset_that_counts_is_found():
    hooks, _ = make_hooks(steps=1000)
    net = nn.Linear(4, 2)
    with hooks.installed():
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for data in (Counting(), Counted(), Counting()):
            for x in DataLoader(data, batch_size=16):
                net(x).sum().backward()
                optimizer.step()
    found = [(one["dataset"], one["counts_reads"]) for one in hooks.described()["loaders"]]
    assert found == [("Counting", False), ("Counted", True)]


def test_an_optimizer_that_steps_within_the_backward_pass_is_watched():
    hooks, recorder = make_hooks(steps=1000)
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)

    def step(_):
        optimizer.step()
        optimizer.zero_grad()

    parameter.register_post_accumulate_grad_hook(step)
    with hooks.installed():
        for _ in range(4):
            parameter.square().sum().backward()
    assert recorder.num_steps == 4
    assert {"gradient.0.0"} == hooks.first_steps._gradients.keys()
    assert "optimizer" in {part["part"] for part in recorder.to_json()["parts"]}


def test_a_script_that_updates_by_hand_is_stopped_when_it_is_late():
    hooks, recorder = make_hooks()
    recorder._limits = ObservationLimits(end_seconds=0.0)
    weight = torch.ones(2, requires_grad=True)
    with hooks.installed(), pytest.raises(EnoughStepsError):
        weight.sum().backward()
    assert (hooks.num_backward, recorder.num_steps) == (1, 0)


def test_enough_is_told_before_the_script_hears_of_it_and_threads_end_with_the_process():
    said = []
    hooks, recorder = make_hooks(steps=2)
    hooks._enough, hooks._end_process = lambda: said.append("enough"), lambda: said.append("end")
    parameter = nn.Parameter(torch.ones(2))

    def train():
        with pytest.raises(EnoughStepsError):
            steps_of(lambda: parameter.square().sum(), [parameter], count=9)

    with hooks.installed():
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
    assert said == ["enough", "end"]
    assert recorder.num_steps == 3
    assert "backward" in {part["part"] for part in recorder.to_json()["parts"]}
