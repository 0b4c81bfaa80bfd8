"""The embedded sample of clips: scikit-learn's digits bouncing on a field (the protocol of Moving
MNIST).

Srivastava, Mansimov & Salakhutdinov 2015 ("Unsupervised Learning of Video Representations using
LSTMs"): digits start at a random place in a random direction, keep their speed, bounce off the
edges of the field, and the brighter pixel wins where they overlap. Here a digit of 8 x 8 is
enlarged to 14 x 14 (theirs: 28 on a field of 64) and moves 2 pixels a frame on a field of 32. Built
again whenever it is asked for: the same on every machine.

Shapes: N clips, T frames, S pixels a side, D digits a clip.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from volano.data.counters import counter_hash, counter_hashes
from volano.data.sources.digits import read_digits
from volano.data.sources.video.clips import Clips, ClipSets

FIELD, DIGIT, SPEED = 32, 14, 2.0
FPS = 10.0
NUM_FRAMES = 16
# About a fifth of the 1,797 digits make the test clips; no digit is in both.
_TEST_SHARE = 0.2
_NUM_TRAIN, _NUM_TEST = 6000, 512
_SPLIT, _PLACE = 41, 42  # first counters of the hashes
_SEED = 0


@functools.lru_cache(maxsize=2)
def bouncing_digits(*, num_frames: int = NUM_FRAMES) -> ClipSets:
    """Returns the sample: 6,000 clips to train on and 512 to test on, of other digits; grey, 32 x
    32, 10 frames a second."""
    glyphs, held_out = _glyphs()
    train = _make(np.flatnonzero(~held_out), glyphs, _NUM_TRAIN, num_frames, part=0)
    test = _make(np.flatnonzero(held_out), glyphs, _NUM_TEST, num_frames, part=1)
    origin = f"scikit-learn's digits, digit bouncing on a field of {FIELD} x {FIELD}"
    return ClipSets(train=train, test=test, fps=FPS, is_held_out=False, origin=origin)


def _glyphs() -> tuple[np.ndarray, np.ndarray]:
    """Returns the digits enlarged, uint8 [1797, 14, 14], and which of them are for testing, bool
    [1797]."""
    from PIL import Image

    small, _ = read_digits()
    glyphs = np.stack(
        [
            np.asarray(Image.fromarray(one).resize((DIGIT, DIGIT), Image.Resampling.BILINEAR))
            for one in small
        ]
    )
    ranks = np.argsort(counter_hashes((_SPLIT,), len(glyphs)), kind="stable")
    held_out = np.zeros(len(glyphs), dtype=bool)
    held_out[ranks[: round(_TEST_SHARE * len(glyphs))]] = True
    return glyphs, held_out


def _make(
    chosen: np.ndarray, glyphs: np.ndarray, num_clips: int, num_frames: int, *, part: int
) -> Clips:
    uniform = _uniform((_PLACE, _SEED, part), (4, num_clips, 1))
    digits = chosen[(uniform[0, :, 0] * len(chosen)).astype(np.int64)]
    rows, columns = (edges[:, :, 0, None] for edges in paths(uniform[1:], num_frames))
    frames = np.zeros((num_clips, num_frames, FIELD, FIELD), dtype=np.uint8)
    clip, moment = np.arange(num_clips)[:, None], np.arange(num_frames)[None, :]
    y, x = rows + np.arange(DIGIT), columns + np.arange(DIGIT)
    place = (clip[..., None, None], moment[..., None, None], y[..., :, None], x[..., None, :])
    frames[place] = glyphs[digits][:, None]
    return Clips(
        frames=torch.from_numpy(frames[:, :, None]),
        lengths=torch.full((num_clips,), num_frames),
        labels=torch.zeros(num_clips, dtype=torch.int64),
        classes=(),
        names=tuple(map(str, digits.tolist())),
    )


def paths(uniform: np.ndarray, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the upper edges and left edges of the digits, int64 [N, T, D] each, from numbers in
    0..1 [3, N, D]: start and direction. At a constant speed between two walls a coordinate is a
    triangle wave of time."""
    room = FIELD - DIGIT
    angle = 2 * np.pi * uniform[2]
    time = np.arange(num_frames)[None, :, None]
    edges = []
    for start, direction in ((uniform[0], np.sin(angle)), (uniform[1], np.cos(angle))):
        unfolded = start[:, None] * room + SPEED * direction[:, None] * time
        edges.append(np.rint(room - np.abs(unfolded % (2 * room) - room)).astype(np.int64))
    return edges[0], edges[1]


def _uniform(counters: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    hashes = counter_hashes((counter_hash(*counters),), int(np.prod(shape)))
    return ((hashes >> np.uint64(11)) * 2.0**-53).reshape(shape)
