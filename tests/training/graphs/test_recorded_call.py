"""What is computed again and again is recorded once; other shapes and what cannot be recorded are
the caller's."""

import pytest
import torch

from training.graphs.recording_graph import recording  # noqa: F401 - a fixture
from volano.device import Device
from volano.training.graphs.recorded_call import RecordedCall, check_recorded


class Sums:
    """Adds up what it is given, in the same memory each time."""

    def __init__(self):
        self.total = torch.zeros(())

    def __call__(self, given):
        values, scale = given
        self.total += values.sum() * scale
        return self.total * 1


def through(recorded, compute, *inputs):
    """The results, and which of them were launched."""
    results, launched = [], []
    for given in inputs:
        launched.append(recorded.launched(given, compute))
        results.append(recorded.result.item() if launched[-1] else compute(given).item())
    return results, launched


def test_the_second_call_in_a_row_of_a_shape_is_recorded(recording):  # noqa: F811
    values = [torch.full((size,), float(n)) for n, size in enumerate((3, 2, 3, 3, 3, 2, 3))]
    recorded, compute = RecordedCall(Device("cpu")), Sums()
    results, launched = through(recorded, compute, *((one, 2) for one in values))
    assert launched == [False, False, False, True, True, False, True]
    assert results == [Sums()((torch.cat(values[: n + 1]), 2)).item() for n in range(7)]
    assert (recording.num_recorded, recording.num_replays) == (1, 3)
    check_recorded(recorded)


def test_what_is_no_tensor_is_part_of_what_is_recorded(recording):  # noqa: F811
    ones = torch.ones(3)
    recorded, compute = RecordedCall(Device("cpu")), Sums()
    results, launched = through(recorded, compute, *((ones, scale) for scale in (1, 1, 2, 1)))
    assert launched == [False, True, False, True]
    assert results == [3.0, 6.0, 12.0, 15.0]


def test_what_cannot_be_recorded_is_computed_eagerly_and_said(recording):  # noqa: F811
    recorded, heard, ones = RecordedCall(Device("cpu")), [], torch.ones(3)
    recorded.on_failure = heard.append

    def reads(given):
        return given[0] * given[0].sum().item()

    assert [recorded.launched((ones, 1), reads) for _ in range(3)] == [False] * 3
    assert len(heard) == 1
    assert "graph=True does not apply: a step cannot be recorded" in heard[0]
    with pytest.raises(RuntimeError, match="cannot be recorded"):
        check_recorded(recorded)


def test_ever_other_shapes_are_given_up(recording):  # noqa: F811
    recorded, compute = RecordedCall(Device("cpu")), Sums()
    through(recorded, compute, *((torch.ones(size), 1) for size in range(1, 30)))
    assert recording.num_recorded == 0
    assert "hardly two batches in a row" in recorded.failure
