"""Worker processes and their slots: nothing is lost, nothing is left, and what goes wrong is
said."""

import os
import pickle
import random
import re
import signal
import tempfile
import threading
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset

from volano.data import Arrays, Fetcher, Order, Quarantine, RingFeed
from volano.data.feed import workers as processes
from volano.data.feed.slots import bytes_in_slot, with_room
from volano.device import Device
from volano.errors import DataError
from volano.task import tensors_of

CPU = Device("cpu")
NUM, BATCH = 96, 16
ORDER = Order(num_examples=NUM, batch_size=BATCH, seed=5)


class Digits(Dataset):
    """Real pictures, one at a time."""

    def __init__(self):
        pixels, labels = load_digits(return_X_y=True)
        self.pixels = torch.tensor(pixels[:NUM], dtype=torch.uint8)
        self.labels = labels[:NUM]

    def __len__(self):
        return NUM

    def __getitem__(self, index):
        return {
            "pixels": self.pixels[index],
            "label": int(self.labels[index]),
            "name": f"digit{index}",
        }


class Dies(Digits):
    """Ends its process at some examples, as often as there are marks left in a folder."""

    def __init__(self, folder, times, how=lambda: os.kill(os.getpid(), signal.SIGKILL), at=40):
        super().__init__()
        self.folder, self.how, self.at = folder, how, at
        for number in range(times):
            (folder / f"{number}").touch()

    def __getitem__(self, index):
        marks = sorted(self.folder.iterdir()) if index == self.at else []
        if marks:
            marks[0].unlink()
            self.how()
        return super().__getitem__(index)


def feed_of(data, *, workers, collate=None, prefetch=2):
    return RingFeed(
        Fetcher(data, collate, 9), CPU, Quarantine(len(data)), workers=workers, prefetch=prefetch
    )


def copied(batch):
    return [tensor.clone() for tensor in tensors_of(batch)]


def run(feed, steps=14, start=0):
    """The batches of a loop that looks at one at a time."""
    return [copied(batch) for batch in feed.batches(ORDER.keys(start, steps))]


def same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert [t.dtype for t in one] == [t.dtype for t in other]
        assert [t.stride() for t in one] == [t.stride() for t in other]
        assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_many_more_batches_than_slots(workers):
    same(run(feed_of(Digits(), workers=workers), 40), run(feed_of(Digits(), workers=0), 40))


def test_batches_lie_in_slots_and_slots_are_used_again():
    feed = feed_of(Digits(), workers=1)
    places = [
        batch["pixels"].untyped_storage().data_ptr() for batch in feed.batches(ORDER.keys(0, 30))
    ]
    assert len(set(places[2:])) <= 2 + 3  # prefetch, and what is in use


def test_a_batch_that_is_held_stays_as_it_was():
    expected = run(feed_of(Digits(), workers=0), 30)
    held = list(feed_of(Digits(), workers=2).batches(ORDER.keys(0, 30)))
    same([copied(batch) for batch in held], expected)
    # One number that looks into a batch holds it too.
    feed = feed_of(Digits(), workers=1)
    numbers = [batch["pixels"][3, 5] for batch in feed.batches(ORDER.keys(0, 30))]
    assert [n.item() for n in numbers] == [tensors[0][3, 5].item() for tensors in expected]


def test_a_second_pass_uses_slots_at_once():
    feed = feed_of(Digits(), workers=1)
    same(run(feed), run(feed))


def test_batches_of_varying_shape():
    def padded(examples):
        longest = max(example["label"] for example in examples)
        rows = [torch.arange(longest * example["label"] + 1) for example in examples]
        return (
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
            torch.zeros(0),
            torch.ones(3, 2).t(),
        )

    same(
        run(feed_of(Digits(), workers=2, collate=padded)),
        run(feed_of(Digits(), workers=0, collate=padded)),
    )


def test_arrays_are_gathered_by_workers_too():
    pixels, labels = load_digits(return_X_y=True)
    data = Arrays(
        {"x": torch.tensor(pixels[:NUM]), "y": torch.tensor(labels[:NUM], dtype=torch.uint8)}
    )
    same(run(feed_of(data, workers=2)), run(feed_of(data, workers=0)))


def test_containers_of_ones_own_arrive_as_they_are():
    def collate(examples):
        return OrderedDict(pixels=torch.stack([example["pixels"] for example in examples]))

    batches = list(feed_of(Digits(), workers=1, collate=collate).batches(ORDER.keys(0, 4)))
    assert all(type(batch) is OrderedDict for batch in batches)


def test_a_loop_that_stops_early_leaves_no_process(tmp_path):
    feed = feed_of(Digits(), workers=2)
    for _ in feed.batches(ORDER.keys(0, 40)):
        break  # conftest looks for processes


class TestWithoutASlot:
    def test_tensors_travel_by_their_bytes(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        (first,) = feed_of(Digits(), workers=1).batches(ORDER.keys(0, 1))
        assert not first["pixels"].is_shared()  # nothing of /dev/shm, no file descriptor
        # Where multiprocessing's own sharing would leave a socket.
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "cut",
        [
            lambda whole: whole[3:5],
            lambda whole: whole[:70:7, 1::2],
            lambda whole: whole[:4].t(),
            lambda whole: whole[2].expand(3, 50),
            lambda whole: whole[9, :20].as_strided((4, 8), (3, 1), whole[9].storage_offset()),
            lambda whole: whole[5, 5],
            lambda whole: whole[:0],
        ],
    )
    def test_a_view_travels_without_what_lies_beside_it(self, cut):
        view = cut(torch.arange(50_000.0).view(1000, 50))
        content = processes.pickled(OrderedDict(view=view))
        found = pickle.loads(content)["view"]
        assert torch.equal(found, view)
        assert found.stride() == view.stride()
        assert len(content) < 20_000

    def test_larger_slots_follow_a_batch_that_does_not_fit(self):
        def padded(examples):
            return torch.zeros(
                len(examples), 100 * min(1 + int(example["name"][5:]) for example in examples)
            )

        keys = sorted(ORDER.keys(0, 6), key=lambda key: int(key.indices.min()))
        keys = [*keys[:1], *keys[-1:] * 9]  # a small one, and large ones
        feed = feed_of(Digits(), workers=2, collate=padded)
        rooms = [batch.untyped_storage().nbytes() for batch in feed.batches(keys)]
        small, large = (
            bytes_in_slot(padded([{"name": f"digit{i}"} for i in keys[n].indices])) for n in (0, -1)
        )
        assert large > with_room(small)
        assert rooms[-1] >= with_room(large)  # a slot; by itself it would have no room left
        same(
            [copied(batch) for batch in feed.batches(keys)],
            [copied(batch) for batch in feed_of(Digits(), workers=0, collate=padded).batches(keys)],
        )


class TestDeath:
    @pytest.mark.parametrize("how", ["SIGKILL", "exit"])
    def test_one_is_replaced_and_nothing_is_lost(self, tmp_path, how):
        def die():
            if how == "exit":
                os._exit(7)
            os.kill(os.getpid(), signal.SIGKILL)

        feed, told = feed_of(Dies(tmp_path, 1, die), workers=2), []
        feed.on_notice = told.append
        same(run(feed), run(feed_of(Digits(), workers=0)))
        (text,) = told
        assert ("was ended by SIGKILL" if how == "SIGKILL" else "ended with exit code 7") in text
        assert "while it made a batch of examples" in text
        assert "nothing is lost" in text

    def test_a_second_death_is_an_error_between_two_batches(self, tmp_path):
        feed = feed_of(Dies(tmp_path, 2), workers=1)
        seen = []
        with pytest.raises(
            DataError, match=r"replaced once; then the run stops; got .*SIGKILL.* examples \d+, "
        ):
            seen.extend(copied(batch) for batch in feed.batches(ORDER.keys(0, 14)))
        step = next(step for step in range(14) if 40 in ORDER.key(step).indices)
        same(seen, run(feed_of(Digits(), workers=0), step))

    def test_an_end_by_exception_tells_where(self, tmp_path):
        def leave():
            raise SystemExit(3)

        feed = feed_of(Dies(tmp_path, 2, leave), workers=1)
        with pytest.raises(
            DataError, match=r"(?s)ended itself:\nTraceback.*in leave.*SystemExit: 3"
        ):
            run(feed)

    def test_a_crash_tells_its_stack(self, tmp_path):
        def crash():
            signal.raise_signal(signal.SIGSEGV)

        feed = feed_of(Dies(tmp_path, 2, crash), workers=1)
        with pytest.raises(DataError, match=r"(?s)ended by SIGSEGV:.*in crash"):
            run(feed)

    def test_killed_from_outside_in_mid_run(self):
        feed, told, seen = feed_of(Digits(), workers=1), [], []
        feed.on_notice = told.append
        import multiprocessing

        for number, batch in enumerate(feed.batches(ORDER.keys(0, 20))):
            seen.append(copied(batch))
            if number == 6:
                (child,) = multiprocessing.active_children()
                os.kill(child.pid, signal.SIGKILL)
        same(seen, run(feed_of(Digits(), workers=0), 20))
        assert len(told) == 1

    def test_no_process_to_replace_one_is_an_error(self, tmp_path, monkeypatch):
        begin, begun = processes._Worker.__init__, []

        def begin_once(self, *args):
            if begun:
                raise OSError(11, "Resource temporarily unavailable")
            begun.append(self)
            begin(self, *args)

        monkeypatch.setattr(processes._Worker, "__init__", begin_once)
        with pytest.raises(
            DataError,
            match=r"start the plan's worker processes.*temporarily unavailable at one of 1\. ",
        ):
            run(feed_of(Dies(tmp_path, 1), workers=1))

    def test_one_that_cannot_be_ended_is_left(self, monkeypatch):
        class Stuck:
            def __init__(self, process):
                self.process = process

            def __getattr__(self, name):
                return lambda *_: None

            def is_alive(self):
                return True

            def close(self):
                raise ValueError("Cannot close a process while it is still running")

        around = processes.Workers(Fetcher(Digits(), None, 0), num=1, ahead=1, on_notice=print)
        (worker,) = around._workers
        real = worker._process
        worker._process = Stuck(real)
        around.close()
        real.join(20)  # it was asked to end
        assert not real.is_alive()
        real.close()


class TestOneThatStandsStill:
    @pytest.fixture
    def impatient(self, monkeypatch):
        monkeypatch.setattr(processes, "_LOOK_SECONDS", 0.01)
        monkeypatch.setattr(processes, "_STANDS_STILL_SECONDS", 0.05)
        monkeypatch.setattr(processes, "_STOPPING_SECONDS", 0.1)

    def test_it_is_named_once_and_does_not_hold_a_run_that_stops(self, impatient):
        said, is_stopping = [], []

        class Sleeps(Digits):
            def __getitem__(self, index):
                threading.Event().wait()

        feed = feed_of(Sleeps(), workers=1)
        feed.is_stopping = lambda: bool(is_stopping)

        def note(text):
            said.append(text)
            is_stopping.append(True)

        feed.on_notice = note
        with pytest.raises(DataError, match=r"asked to stop must get its batch.*\(pid \d+\)"):
            run(feed)
        assert len(said) == 1
        assert re.search(r"\(pid \d+\) has stood still for 0 s over a batch of examples", said[0])


class TestWhatCannotTravel:
    def test_an_object_that_cannot_be_pickled_is_named(self):
        class Locked(Digits):
            def __getitem__(self, index):
                return super().__getitem__(index)["pixels"]

        def collate(examples):
            return {"pixels": torch.stack(examples), "meta": [1, threading.Lock()]}

        with pytest.raises(
            DataError, match=r"must be picklable.*; got batch\['meta'\]\[1\], a lock: "
        ):
            run(feed_of(Locked(), workers=1, collate=collate))

    def test_a_graph_of_gradients_does_not(self):
        def collate(examples):
            return {"x": torch.ones(len(examples), requires_grad=True) * 2}

        with pytest.raises(
            DataError, match=r"got batch\['x'\], a Tensor: a tensor that carries a graph"
        ):
            run(feed_of(Digits(), workers=1, collate=collate))

    def test_a_started_worker_needs_pickles(self, monkeypatch):
        from volano.data.feed import workers

        monkeypatch.setattr(workers, "start_method", lambda: "spawn")
        with pytest.raises(
            DataError, match="the task's collate is pickled for them; got function: "
        ):
            run(feed_of(Digits(), workers=1, collate=lambda examples: examples))


def test_workers_end_with_their_parent(tmp_path):
    """A training process that is killed leaves no worker behind, not even one that is busy."""
    import subprocess
    import sys

    code = f"""
import os, sys, time
import torch
from torch.utils.data import Dataset
from volano.data import Fetcher, Order, Quarantine, RingFeed
from volano.device import Device

class Slow(Dataset):
    def __len__(self): return 64
    def __getitem__(self, index):
        open({str(tmp_path)!r} + f"/{{os.getpid()}}", "w").close()
        if index == 63: time.sleep(600)
        return torch.tensor(index)

feed = RingFeed(Fetcher(Slow(), None, 0), Device("cpu"), Quarantine(64), workers=2)
for batch in feed.batches(Order(num_examples=64, batch_size=8, seed=0).keys(0, 8)):
    print("batch", flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    child.kill()
    child.wait()
    child.stdout.close()
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(_is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_is_running(pid) for pid in pids)


def _is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_waiting_is_measured():
    class Slow(Digits):
        def __getitem__(self, index):
            time.sleep(0.001)
            return super().__getitem__(index)

    feed = feed_of(Slow(), workers=0)
    run(feed, 4)
    assert feed.seconds_waited >= 4 * BATCH * 0.001


def test_random_state_is_left_alone_by_workers():
    random.seed(4), np.random.seed(4), torch.manual_seed(4)
    before = random.getstate(), torch.get_rng_state()
    run(feed_of(Digits(), workers=2))
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


class LateDevice:
    """A device that copies as late as it may: when it is waited for."""

    is_cpu, can_pin, torch_device = False, True, torch.device("cpu")

    def __init__(self):
        self.queue = []
        self.num_waits = 0

    def lock_pages(self, memory):
        return True

    def unlock_pages(self, memory):
        self.drain()  # unlocking waits for what reads there

    def stream(self):
        import contextlib

        class Stream(contextlib.nullcontext):
            def wait_stream(self, other):
                pass

        return Stream()

    def current_stream(self):
        import types

        return types.SimpleNamespace(wait_event=lambda event: None)

    def event(self):
        return LateEvent(self)

    def drain(self):
        while self.queue:
            self.queue.pop(0)()


class LateEvent:
    def __init__(self, device):
        self.device, self.left = device, None

    def record(self, stream):
        self.device.queue.append(self.happen)
        self.left = True

    def happen(self):
        self.left = False

    def query(self):
        return not self.left

    def synchronize(self):
        self.device.num_waits += 1
        while self.left:
            self.device.queue.pop(0)()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_no_slot_is_written_before_the_device_has_read_it(workers, monkeypatch):
    from volano.device import transfer

    device = LateDevice()

    def copy_late(source, target):
        device.queue += [
            lambda a=a, b=b: b.copy_(a)
            for a, b in zip(tensors_of(source), tensors_of(target), strict=True)
        ]

    monkeypatch.setattr(transfer, "_copy", copy_late)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    feed = RingFeed(Fetcher(Digits(), None, 9), device, Quarantine(NUM), workers=workers)
    batches = list(feed.batches(ORDER.keys(0, 40)))
    device.drain()
    same([copied(batch) for batch in batches], run(feed_of(Digits(), workers=0), 40))
    assert device.num_waits > 20
