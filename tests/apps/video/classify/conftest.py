"""Clips of two classes: a square that moves to the right, and one that moves to the left."""

import pytest

import volano
from clips import moving_square, write_clip
from volano.apps.video.classify.application import ClipClassifyApplication
from volano.apps.video.classify.options import ClipClassifyOptions


def write_classes(root, count=8):
    """Clips of several lengths, in ``left/`` and ``right/``."""
    for number in range(count):
        for name, speed in (("left", -1), ("right", 1)):
            frames = moving_square(
                8 + number % 3, (16, 16), speed=speed, start=2 * number, colour=(255, 200, 9)
            )
            write_clip(root / name / f"{number}.gif", frames)
    return root


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("moving"))


@pytest.fixture(scope="session")
def application(folder):
    return ClipClassifyApplication.read(ClipClassifyOptions(path=str(folder), num_frames=4))


HOW = {"plan": volano.Plan.baseline(), "observer": volano.Observer()}


@pytest.fixture(scope="session")
def trained(folder, tmp_path_factory):
    return volano.train(
        "video", folder, classify=True, num_frames=4, epochs=12, seed=1,
        out=tmp_path_factory.mktemp("runs") / "run", **HOW,
    )  # fmt: skip
