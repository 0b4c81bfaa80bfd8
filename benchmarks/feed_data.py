"""Data for the benchmarks of the feed, made of real pictures and texts; the same for the same
seed."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from sklearn.datasets import load_sample_images

SIDE = 28


def write_crops(path: Path, num: int, *, labels: Path | None = None, seed: int = 0) -> None:
    """Grey crops of 28 x 28 from scikit-learn's two photographs, uint8 [num, 784]; the label says
    which photograph."""
    pictures = [picture.mean(2).astype(np.uint8) for picture in load_sample_images().images]
    windows = [sliding_window_view(picture, (SIDE, SIDE)) for picture in pictures]
    generator = np.random.default_rng(seed)
    crops = open_memmap(path, mode="w+", dtype=np.uint8, shape=(num, SIDE * SIDE))
    which = generator.integers(0, 2, num)
    for start in range(0, num, 65536):
        part = which[start : start + 65536]
        for number, window in enumerate(windows):
            rows = np.flatnonzero(part == number)
            tops, lefts = (generator.integers(0, size, len(rows)) for size in window.shape[:2])
            crops[start + rows] = window[tops, lefts].reshape(-1, SIDE * SIDE)
    crops.flush()
    if labels is not None:
        np.save(labels, which.astype(np.int64))


def write_tokens(path: Path, num: int, *, seed: int = 0) -> None:
    """Bytes of the standard library's sources, file after file in an order of chance, as uint16
    [num]."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [np.frombuffer(file.read_bytes(), dtype=np.uint8) for file in files]
    generator = np.random.default_rng(seed)
    tokens = open_memmap(path, mode="w+", dtype=np.uint16, shape=(num,))
    filled = 0
    while filled < num:
        text = texts[generator.integers(len(texts))][: num - filled]
        tokens[filled : filled + len(text)] = text
        filled += len(text)
    tokens.flush()


def write_photographs(root: Path, num: int, *, seed: int = 0) -> None:
    """Crops of 320 x 240 of the two photographs as JPEGs of quality 90, in a folder for each."""
    generator = np.random.default_rng(seed)
    for name, picture in zip(("china", "flower"), load_sample_images().images, strict=True):
        (root / name).mkdir(parents=True)
        for number in range(num // 2):
            top, left = (
                generator.integers(0, picture.shape[0] - 240),
                generator.integers(0, picture.shape[1] - 320),
            )
            crop = Image.fromarray(picture[top : top + 240, left : left + 320])
            crop.save(root / name / f"{number:06}.jpg", quality=90)


def forget(folder: Path) -> None:
    """Takes all files of a folder out of the page cache, so that whoever reads them next pays for
    it."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
