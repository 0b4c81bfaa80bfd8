"""Pixels of picture files: sizes, channels, transparency, orientation, and what cannot be read."""

import struct

import numpy as np
import pytest
from PIL import Image

from data.sources.image.test_image_sets import picture
from volano.data.sources import PixelFormat, choose_format, decode
from volano.data.sources.image.images import ImageFile


class TestDecode:
    FORMAT = PixelFormat(channels=3, size=16)

    def test_transparency_becomes_white(self, tmp_path):
        Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "a.png")
        assert (decode(tmp_path / "a.png", self.FORMAT) == 255).all()

    def test_a_photograph_is_turned_upright(self, tmp_path):
        image = Image.new("RGB", (16, 16), "black")
        image.paste("white", (0, 0, 16, 8))
        exif = Image.Exif()
        exif[0x0112] = 3  # turned by 180 degrees
        image.save(tmp_path / "a.jpg", exif=exif, quality=95)
        pixels = decode(tmp_path / "a.jpg", self.FORMAT)
        assert pixels[:, :7].mean() < 10
        assert pixels[:, 9:].mean() > 245

    def test_the_middle_is_kept(self, tmp_path):
        image = Image.new("L", (48, 16), 0)
        image.paste(255, (16, 0, 32, 16))
        image.save(tmp_path / "a.png")
        assert (decode(tmp_path / "a.png", PixelFormat(channels=1, size=16)) == 255).all()

    def test_pixels_of_the_right_size_are_not_touched(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert np.array_equal(decode(tmp_path / "a.png", self.FORMAT), pixels.transpose(2, 0, 1))

    @pytest.mark.parametrize("channels", [1, 3])
    def test_sixteen_bits_become_eight(self, tmp_path, channels):
        ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
        Image.fromarray(ramp).save(tmp_path / "a.png")
        pixels = decode(tmp_path / "a.png", PixelFormat(channels=channels, size=16))
        assert np.array_equal(pixels[0].reshape(-1), np.arange(256))

    def test_floats_have_no_range(self, tmp_path):
        Image.fromarray(np.random.rand(16, 16).astype(np.float32)).save(tmp_path / "a.tiff")
        with pytest.raises(OSError, match="floating-point pixels"):
            decode(tmp_path / "a.tiff", self.FORMAT)

    @pytest.mark.parametrize(
        "error",
        [struct.error, KeyError, TypeError, ZeroDivisionError, EOFError, ValueError, IndexError],
    )
    def test_whatever_pillow_raises_is_an_unreadable_file(self, tmp_path, monkeypatch, error):
        def broken(image):
            raise error("in a directory of tags")

        picture(tmp_path / "a.png")
        monkeypatch.setattr("PIL.ImageOps.exif_transpose", broken)
        with pytest.raises(OSError, match=rf"{error.__name__}: .*in a directory of tags"):
            decode(tmp_path / "a.png", self.FORMAT)

    def test_memory_that_runs_out_is_no_unreadable_file(self, tmp_path, monkeypatch):
        def broken(image):
            raise MemoryError

        picture(tmp_path / "a.png")
        monkeypatch.setattr("PIL.ImageOps.exif_transpose", broken)
        with pytest.raises(MemoryError):
            decode(tmp_path / "a.png", self.FORMAT)

    def test_headers_that_raise_anything_are_skipped(self, tmp_path, monkeypatch):
        picture(tmp_path / "a.png", size=(40, 40))
        picture(tmp_path / "b.png", size=(24, 24))
        real = Image.open

        def opening(path):
            if path.name == "a.png":
                raise ZeroDivisionError
            return real(path)

        monkeypatch.setattr(Image, "open", opening)
        files = [ImageFile(path=tmp_path / name, label=0) for name in ("a.png", "b.png")]
        assert choose_format(files) == PixelFormat(channels=3, size=24)

    def test_the_size_is_read_off_the_headers(self, tmp_path):
        picture(tmp_path / "big.png", size=(500, 400))
        assert choose_format([ImageFile(path=tmp_path / "big.png", label=0)]) == PixelFormat(
            channels=3, size=128
        )
