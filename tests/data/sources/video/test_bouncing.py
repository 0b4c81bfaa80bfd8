import numpy as np
import pytest
import torch

from volano.data.sources import bouncing_digits
from volano.data.sources.video.bouncing import DIGIT, FIELD, SPEED, paths


@pytest.fixture(scope="module")
def sets():
    return bouncing_digits()


def test_shapes_and_types(sets):
    assert sets.train.frames.shape == (6000, 16, 1, 32, 32)
    assert sets.test.frames.shape == (512, 16, 1, 32, 32)
    assert sets.train.frames.dtype == torch.uint8
    assert sets.train.classes == ()
    assert sets.train.lengths.tolist() == [16] * 6000
    assert not sets.is_held_out


def test_no_digit_is_in_both(sets):
    train, test = set(sets.train.names), set(sets.test.names)
    assert not train & test
    assert len(train) > 1300
    assert len(test) > 250


def test_the_digit_keeps_its_shape_and_stays_on_the_field(sets):
    clip = sets.test.frames[0, :, 0]
    assert (clip.sum((1, 2), dtype=torch.int64) == clip[0].sum(dtype=torch.int64)).all()


def test_it_is_the_same_every_time(sets):
    bouncing_digits.cache_clear()
    again = bouncing_digits()
    assert torch.equal(again.train.frames, sets.train.frames)
    assert again.test.names == sets.test.names


def test_digits_move_at_one_speed_and_bounce_off_the_edges():
    generator = np.random.default_rng(0)
    rows, columns = paths(generator.random((3, 200, 1)), 64)
    room = FIELD - DIGIT
    for edges in (rows, columns):
        assert edges.min() == 0
        assert edges.max() == room
        # Rounded to whole pixels, a step is within one pixel of the speed's part along the axis.
        assert np.abs(np.diff(edges, axis=1)).max() <= SPEED + 1
    # Away from the edges the way over ten frames is ten times the speed, up to a rounding of one
    # pixel on each axis.
    inside = ((rows > 2) & (rows < room - 2) & (columns > 2) & (columns < room - 2)).all(2)
    for clip, start in zip(*np.nonzero(inside[:, :-4]), strict=True):
        if inside[clip, start : start + 5].all():
            way = np.hypot(
                *(edges[clip, start + 4, 0] - edges[clip, start, 0] for edges in (rows, columns))
            )
            assert abs(way - 4 * SPEED) <= np.sqrt(2)


def test_an_edge_reflects():
    # Start at the top left, straight to the right: out to the wall, and back the same way.
    rows, columns = paths(np.array([0.0, 0.0, 0.0]).reshape(3, 1, 1), 19)
    assert rows[0, :, 0].tolist() == [0] * 19
    assert columns[0, :, 0].tolist() == [*range(0, 18, 2), 18, *range(16, -1, -2)]
