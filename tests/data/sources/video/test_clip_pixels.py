"""Frames upright, of square pixels, in a square."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from clips import write_clip
from volano.data.sources import ClipFormat, decode_clip
from volano.data.sources.video.clip_files import read_facts
from volano.data.sources.video.clip_pixels import Orientation, stretch_of

GREY = ClipFormat(channels=1, size=32, fps=10.0)


def corner(height=32, width=32):
    """A bright quarter at the top left, and a mark that tells rows from columns."""
    frame = np.zeros((height, width, 3), dtype=np.uint8)
    frame[: height // 2, : width // 2] = 200
    frame[height // 2 :, : width // 4] = 90
    return frame


@pytest.mark.parametrize(
    ("degrees", "mirrored", "turn"),
    [
        (0, False, lambda pixels: pixels),
        (90, False, lambda pixels: np.rot90(pixels, 1)),
        (180, False, lambda pixels: np.rot90(pixels, 2)),
        (270, False, lambda pixels: np.rot90(pixels, 3)),
        (0, True, lambda pixels: pixels[:, ::-1]),
    ],
)
def test_what_the_camera_says_of_its_orientation(tmp_path, degrees, mirrored, turn):
    def prepare(stream):
        stream.set_display_rotation(degrees, hflip=mirrored)

    frames = np.stack([corner()] * 4)
    plain = decode_clip(write_clip(tmp_path / "plain.mp4", frames), GREY)[0, 0].astype(int)
    found = decode_clip(write_clip(tmp_path / "a.mp4", frames, prepare=prepare), GREY)[0, 0]
    options = [turn(plain), np.rot90(turn(plain), 2)]  # degrees count one way or the other
    assert min(np.abs(found - option).max() for option in options) <= 12


@pytest.mark.parametrize("k", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_all_eight_orientations(k, mirrored):
    """A matrix says where the columns and rows of the stored frame go."""
    pixels = np.arange(12).reshape(3, 4)
    wanted = np.rot90(pixels[:, ::-1] if mirrored else pixels, k)
    # (column, row) -> (column, row), by the places of two neighbours.
    corners = ((0, 0), (0, 1), (1, 0))
    origin, right, below = (np.argwhere(wanted == pixels[place])[0] for place in corners)
    a, b = (right - origin)[::-1]
    c, d = (below - origin)[::-1]
    matrix = np.zeros(9, dtype=np.int32)
    matrix[[0, 1, 3, 4]] = np.array([a, b, c, d]) * 65536
    frame = SimpleNamespace(side_data={"DISPLAYMATRIX": matrix.tobytes()})
    assert np.array_equal(Orientation.of(frame).upright(pixels), wanted)


@pytest.mark.parametrize("stated", [b"", b"\0" * 36, b"\0" * 8])
def test_a_matrix_that_says_nothing_turns_nothing(stated):
    frame = SimpleNamespace(side_data={"DISPLAYMATRIX": stated})
    assert Orientation.of(frame) == Orientation()


def test_pixels_that_are_no_squares(tmp_path):
    def prepare(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)

    frames = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    frames[:, :, 8:24] = 200  # shown, 32 x 64, this is the centred square
    path = write_clip(tmp_path / "a.mp4", frames, prepare=prepare)
    assert (read_facts(path).width, read_facts(path).height) == (64, 32)
    assert decode_clip(path, GREY).min() > 120  # the codec blurs the edges


@pytest.mark.parametrize(
    ("stated", "stretch"),
    [
        (None, 1),
        (Fraction(0), 1),
        (Fraction(4, 3), 4 / 3),
        (Fraction(1, 10**6), 1),
        (Fraction(99), 1),
    ],
)
def test_a_nonsensical_stretch_is_none(stated, stretch):
    found = stretch_of(SimpleNamespace(sample_aspect_ratio=stated))
    assert found == pytest.approx(stretch)


def test_wide_frames_are_cut_padded_or_squeezed(tmp_path):
    frames = np.full((4, 32, 64, 3), 60, dtype=np.uint8)
    frames[:, :, 16:48] = 200
    path = write_clip(tmp_path / "a.mkv", frames)
    cut, padded, squeezed = (
        decode_clip(path, ClipFormat(channels=1, size=32, fps=10.0, fit=fit))[0, 0].astype(int)
        for fit in ("cut", "pad", "squeeze")
    )
    assert cut.min() > 190
    assert padded[:8].max() == padded[24:].max() == 0
    assert padded[8:24, 8:24].min() > 190
    assert padded[8:24, :7].max() < 70
    assert squeezed[:, 9:23].min() > 190
    assert squeezed[:, :7].max() < 70


@pytest.mark.parametrize("fit", ["cut", "pad", "squeeze"])
@pytest.mark.parametrize("size", [(16, 400), (400, 16)])
def test_frames_of_any_shape_become_squares(tmp_path, fit, size):
    frames = np.full((3, *size, 3), 128, dtype=np.uint8)
    path = write_clip(tmp_path / "a.mkv", frames)
    found = decode_clip(path, ClipFormat(channels=3, size=8, fps=10.0, fit=fit))
    assert found.shape == (3, 3, 8, 8)
