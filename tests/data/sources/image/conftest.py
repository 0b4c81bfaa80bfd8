"""Photographs that do not fit into memory."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from volano.device import Device

NUM = 60  # of each class


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Crops of scikit-learn's two photographs, in a folder for each; one crop lies there twice."""
    root = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        (root / name).mkdir()
        for number in range(NUM):
            top, left = generator.integers(0, 300), generator.integers(0, 500)
            crop = Image.fromarray(pixels[top : top + 96, left : left + 128])
            crop.save(root / name / f"{number:03}.jpg", quality=90)
    (root / "china" / "copy.jpg").write_bytes((root / "china" / "007.jpg").read_bytes())
    return root


@pytest.fixture
def little_memory(monkeypatch):
    """Half of the free memory is less than the decoded images take."""
    monkeypatch.setattr(Device, "free_bytes", lambda self: 1_000_000)
