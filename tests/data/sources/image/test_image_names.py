"""Names of images: whatever Pillow can open."""

import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from PIL import Image

from volano.data.sources.image import image_names
from volano.data.sources.image.image_names import (
    image_suffixes,
    is_image,
    others_in_words,
    picture_formats,
)


@pytest.fixture
def fresh():
    """Pillow is asked anew, here and after the test."""
    for function in (picture_formats, image_suffixes):
        function.cache_clear()
    yield
    for function in (picture_formats, image_suffixes):
        function.cache_clear()


@pytest.mark.parametrize("suffix", ["jpg", "JFIF", "avif", "jp2", "tga", "webp", "pgm", "tif"])
def test_what_pillow_opens_is_an_image(suffix):
    assert is_image(f"a.{suffix}")
    assert not is_image(f".a.{suffix}")


@pytest.mark.parametrize("suffix", ["txt", "pdf", "mp4", "eps", "ps", "mpg", "h5", "heic", ""])
def test_what_it_does_not_open_is_none(suffix):
    """Nor what it would have another program draw."""
    assert not is_image(f"a.{suffix}")


def test_a_plugin_is_asked(fresh, monkeypatch):
    def register():
        Image.register_open("HEIF", lambda fp, name: None, lambda prefix: False)
        Image.register_extension("HEIF", ".heic")

    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "EXTENSION", dict(Image.EXTENSION))
    assert is_image("a.HEIC")
    assert "HEIF" in picture_formats()


def test_the_usual_formats_are_tried_first():
    assert picture_formats()[:2] == ("JPEG", "PNG")
    assert "EPS" not in picture_formats()
    assert len(set(picture_formats())) == len(picture_formats())


def test_others_are_counted_by_kind(tmp_path):
    for name in ("a.png", "b.HEIC", "c.heic", "d.txt", "e", ".hidden.txt"):
        (tmp_path / name).touch()
    others = Counter()
    assert image_names.listed(tmp_path, others=others) == [tmp_path / "a.png"]
    assert others_in_words(others) == [
        "files that Pillow does not open as images are left out: 2 .heic, 1 .txt, 1 (no suffix); "
        "pillow-heif lets it"
    ]
    many = others_in_words(Counter({f".{number}": 9 - number for number in range(7)}))
    assert many[0].endswith("9 .0, 8 .1, 7 .2, 6 .3, 5 .4, ...")
    assert others_in_words(Counter()) == []
