"""Steps of a pack that the device records are eager ones, bit by bit; what cannot be recorded stays
eager and is said."""

import dataclasses

import pytest

from packing.comparing import advanced, assert_same_bits, pack_of
from packing.structures import NUM_STEPS, STRUCTURES
from training.graphs.recording_graph import recording  # noqa: F401 - a fixture
from volano.packing import Member, Pack
from volano.packing.engines import stacked


# Updated in one pass, which is recorded too, and each by its own optimizer.
@pytest.mark.parametrize("most_elements", [10_000, 0])
@pytest.mark.parametrize("name", ["mlp", "convolutional"])
def test_recorded_steps_are_eager_ones(recording, monkeypatch, name, most_elements):  # noqa: F811
    monkeypatch.setattr(stacked, "_MOST_ELEMENTS", most_elements)
    tasks = STRUCTURES[name].tasks(batch_size=10, last_batch="keep")
    eager = advanced(pack_of(tasks, graph=False), 7, NUM_STEPS)
    assert recording.num_recorded == 0
    pack = advanced(pack_of(tasks), 7, NUM_STEPS)
    # One launch a step, but for the first and for each epoch's last batch, of six examples.
    assert (recording.num_recorded, recording.num_replays) == (1, NUM_STEPS - 1 - 2)
    assert "graph" not in pack.refused
    assert_same_bits(pack, eager)


def test_members_with_batches_of_their_own_that_leave_are_recorded_again(recording):  # noqa: F811
    tasks = [
        dataclasses.replace(task, data_seed=number)
        for number, task in enumerate(STRUCTURES["mlp"].tasks())
    ]
    packs = [advanced(pack_of(tasks, graph=graph), 6) for graph in (False, None)]
    for pack in packs:
        pack.keep([0, 3])
        advanced(pack, 12)
    assert (recording.num_recorded, recording.num_replays) == (2, 5 + 5)
    assert_same_bits(*reversed(packs))


def test_an_engine_shows_that_what_it_records_is_right_before_it_is_taken(
    recording,  # noqa: F811
    slow_loop,
):
    members = [Member(number=n, task=t) for n, t in enumerate(STRUCTURES["mlp"].tasks())]
    pack = Pack(members, device="cpu", num_steps=10_000)
    assert pack.engine == "lowered"
    assert recording.num_replays == 3  # of four steps


def test_what_cannot_be_recorded_is_said(recording, monkeypatch):  # noqa: F811
    def refuse(*_):
        raise RuntimeError("operation not permitted when stream is capturing")

    tasks = STRUCTURES["mlp"].tasks()
    with monkeypatch.context() as patched:
        patched.setattr(recording, "recording", refuse)
        pack = advanced(pack_of(tasks), 4)
    assert "cannot be recorded: RuntimeError: operation not permitted" in pack.refused["graph"]
    assert_same_bits(pack, advanced(pack_of(tasks, graph=False), 4))
    pack.keep([0, 1])
    assert "graph" not in advanced(pack, 8).refused  # other memory, and it is recorded


def test_members_one_by_one_are_not_recorded(recording):  # noqa: F811
    advanced(pack_of(STRUCTURES["mlp"].tasks(), engine="loop"), 3)
    assert recording.num_recorded == 0


def test_a_device_that_records_nothing_is_said():
    tasks = STRUCTURES["mlp"].tasks()
    assert pack_of(tasks, graph=True).refused["graph"] == "cpu records none"
    assert "graph" not in pack_of(tasks).refused
