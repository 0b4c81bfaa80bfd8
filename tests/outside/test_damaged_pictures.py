"""Pictures that are cut short, or in which some bits have changed: read or set aside, never a
crash, never a picture of another shape."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from volano.data.sources import PixelFormat, choose_format, decode
from volano.data.sources.image.images import ImageFile, decode_all

FORMATS = {"png": {}, "jpg": {"quality": 80}, "gif": {}, "webp": {}, "tiff": {}, "bmp": {}}
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=6)


def content_of(suffix, mode, size=(24, 17)):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(
        file, {"jpg": "JPEG"}.get(suffix, suffix.upper()), **FORMATS[suffix]
    )
    return file.getvalue()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "a.png"


@pytest.mark.parametrize("suffix", FORMATS)
@settings(
    max_examples=60, deadline=None, database=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    changes=CHANGES,
    length=st.one_of(st.just(1.0), st.floats(0, 1)),
    mode=st.sampled_from(["RGB", "L"]),
    channels=st.sampled_from([1, 3]),
    fit=st.sampled_from(["cut", "pad", "squeeze"]),
)
def test_a_damaged_picture_is_read_or_set_aside(file, suffix, changes, length, mode, channels, fit):
    content = bytearray(content_of(suffix, mode))
    for place, change in changes:
        content[int(place * (len(content) - 1))] ^= change
    file.write_bytes(content[: int(length * len(content))])
    wanted = PixelFormat(channels=channels, size=16, fit=fit, pixel_range=(0.0, 255.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about metadata
        try:
            pixels = decode(file, wanted)
        except OSError:
            pixels = None
    assert pixels is None or (pixels.shape, pixels.dtype) == ((channels, 16, 16), np.uint8)


def test_a_set_with_damaged_pictures_is_read_without_them(tmp_path):
    files = []
    for number in range(20):
        content = content_of("png", "RGB", size=(16, 16 + number))
        files.append(ImageFile(path=tmp_path / f"{number}.png", label=number % 2))
        files[-1].path.write_bytes(content[: len(content) // 2] if number == 7 else content)
    chosen = choose_format(files)
    assert chosen.channels == 3
    read = decode_all(files, ("a", "b"), chosen, root=tmp_path)
    assert (len(read), [fault.index for fault in read.faults]) == (19, [7])
