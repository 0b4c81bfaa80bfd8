"""Pixels of picture files: sizes, channels, transparency, orientation, and what cannot be read."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from data.sources.image.test_image_sets import picture
from volano.data.sources import PixelFormat, WantedFormat, choose_format, decode
from volano.data.sources.image.decoding import _warnings_heard
from volano.data.sources.image.image_names import picture_formats
from volano.data.sources.image.images import ImageFile
from volano.errors import DataError


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

    def test_the_inks_of_print_become_colours(self, tmp_path):
        image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
        image.save(tmp_path / "a.tif")
        chosen = choose_format([ImageFile(path=tmp_path / "a.tif", label=0)])
        pixels = decode(tmp_path / "a.tif", chosen)
        assert pixels[:, 0, 0].tolist() == [255, 0, 0]

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

    def test_floats_have_no_range_without_a_set(self, tmp_path):
        Image.fromarray(np.random.rand(16, 16).astype(np.float32)).save(tmp_path / "a.tiff")
        with pytest.raises(OSError, match="floating-point pixels"):
            decode(tmp_path / "a.tiff", self.FORMAT)

    def test_thirty_two_bits_have_no_range_without_a_set(self, tmp_path):
        Image.fromarray(np.full((16, 16), -5, dtype=np.int32)).save(tmp_path / "a.tiff")
        with pytest.raises(OSError, match="32-bit pixels have no range"):
            decode(tmp_path / "a.tiff", self.FORMAT)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_every_orientation_of_exif(self, tmp_path, orientation):
        stored = np.zeros((16, 16), dtype=np.uint8)
        stored[:4, :8] = 255
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
        turned = [
            stored, stored[:, ::-1], stored[::-1, ::-1], stored[::-1],
            stored.T, np.rot90(stored, -1), stored[::-1, ::-1].T, np.rot90(stored),
        ]  # fmt: skip
        pixels = decode(tmp_path / "a.png", PixelFormat(channels=1, size=16))[0]
        assert np.array_equal(pixels, turned[orientation - 1])

    def test_a_transparent_value_of_sixteen_bits_is_white(self, tmp_path):
        stored = np.full((16, 16), 300, dtype=np.uint16)
        stored[:8] = 7
        Image.fromarray(stored).save(tmp_path / "a.png", transparency=7)
        pixels = decode(tmp_path / "a.png", PixelFormat(channels=1, size=16, pixel_range=(0, 600)))
        assert pixels[0, :8].min() == 255
        assert set(pixels[0, 8:].ravel()) == {128}

    @pytest.mark.parametrize("side", [20_000, 60_000])
    def test_a_header_that_states_a_huge_picture(self, tmp_path, side):
        picture(tmp_path / "a.png")
        content = bytearray((tmp_path / "a.png").read_bytes())
        content[16:24] = struct.pack(">II", side, side)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(OSError, match="header states more pixels than an image may have"):
            decode(tmp_path / "a.png", self.FORMAT)

    @pytest.mark.parametrize(
        "error",
        [struct.error, KeyError, TypeError, ZeroDivisionError, EOFError, ValueError, IndexError],
    )
    def test_whatever_pillow_raises_is_an_unreadable_file(self, tmp_path, monkeypatch, error):
        def broken(image):
            raise error("in a directory of tags")

        picture(tmp_path / "a.png")
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", broken)
        with pytest.raises(OSError, match=rf"{error.__name__}: .*in a directory of tags"):
            decode(tmp_path / "a.png", self.FORMAT)

    def test_memory_that_runs_out_is_no_unreadable_file(self, tmp_path, monkeypatch):
        def broken(image):
            raise MemoryError

        picture(tmp_path / "a.png")
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", broken)
        with pytest.raises(MemoryError):
            decode(tmp_path / "a.png", self.FORMAT)

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF")
    @pytest.mark.parametrize("junk", ["49492a00ffffffff", "4d4d002a00000008ffff01", ""])
    def test_damaged_exif_loses_no_photograph(self, tmp_path, junk):
        image = Image.fromarray(np.full((16, 16, 3), 90, dtype=np.uint8))
        image.save(tmp_path / "a.jpg", exif=b"Exif" + bytes(2) + bytes.fromhex(junk))
        assert decode(tmp_path / "a.jpg", self.FORMAT).mean() == 90

    def test_exif_that_cannot_be_read_turns_nothing(self, tmp_path, monkeypatch):
        def broken(image):
            raise struct.error("in a directory of tags")

        picture(tmp_path / "a.png")
        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.getexif", broken)
        assert decode(tmp_path / "a.png", self.FORMAT).shape == (3, 16, 16)

    def test_grey_with_transparency_is_grey(self, tmp_path):
        Image.new("LA", (16, 16), (0, 0)).save(tmp_path / "a.png")
        chosen = choose_format([ImageFile(path=tmp_path / "a.png", label=0)])
        assert chosen == PixelFormat(channels=1, size=16)
        assert (decode(tmp_path / "a.png", chosen) == 255).all()

    def test_why_none_can_be_read_is_said(self, tmp_path):
        picture(tmp_path / "cat1.png")
        files = [ImageFile(path=tmp_path / name, label=0) for name in ("cat2.png", "no.txt")]
        with pytest.raises(DataError, match=r"cat2.png: No such file.* Nearest there: .*cat1.png"):
            choose_format(files)
        (tmp_path / "no.txt").write_text("<html>")
        with pytest.raises(DataError, match=r"no.txt: cannot identify.*Look at one of them"):
            choose_format(files[1:])

    def test_headers_that_raise_anything_are_skipped(self, tmp_path, monkeypatch):
        picture(tmp_path / "a.png", size=(40, 40))
        picture(tmp_path / "b.png", size=(24, 24))
        real = Image.open

        def opening(path, **options):
            if path.name == "a.png":
                raise ZeroDivisionError
            return real(path, **options)

        monkeypatch.setattr(Image, "open", opening)
        files = [ImageFile(path=tmp_path / name, label=0) for name in ("a.png", "b.png")]
        assert choose_format(files) == PixelFormat(channels=3, size=24)

    def test_the_size_is_read_off_the_headers(self, tmp_path):
        picture(tmp_path / "big.png", size=(500, 400))
        assert choose_format([ImageFile(path=tmp_path / "big.png", label=0)]) == PixelFormat(
            channels=3, size=128
        )


def deep(path, low, high, dtype=np.uint16):
    values = np.linspace(low, high, 32 * 32).reshape(32, 32).astype(dtype)
    Image.fromarray(values).save(path)
    return ImageFile(path=path, label=0)


class TestOneRangeForASet:
    @pytest.mark.parametrize(
        ("dtype", "suffix", "values", "chosen"),
        [
            (np.uint16, ".png", [(0, 900), (30, 1000)], (0, 1023)),
            (np.uint16, ".png", [(0, 200), (30, 4000)], (0, 4095)),
            (np.uint16, ".tif", [(5, 9000), (30, 16000)], (0, 16383)),
            (np.uint16, ".tif", [(5, 200), (30, 60000)], (0, 65535)),
            (np.uint16, ".png", [(520, 600), (500, 620)], (500, 620)),  # dark: no bytes to tell
            (np.int32, ".tif", [(-1000, 10), (0, 1000)], (-1000, 1000)),
            (np.int32, ".tif", [(0, 10**6), (5, 7)], (0, 10**6)),
            (np.float32, ".tif", [(0.25, 0.5), (-0.5, 0)], (-0.5, 0.5)),
            (np.float32, ".tif", [(3, 3)], (3, 4)),
        ],
    )
    def test_the_range(self, tmp_path, dtype, suffix, values, chosen):
        files = [
            deep(tmp_path / f"{number}{suffix}", low, high, dtype)
            for number, (low, high) in enumerate(values)
        ]
        said = []
        pixel_format = choose_format(files, said=said)
        assert pixel_format.pixel_range == chosen
        assert pixel_format.channels == 1
        assert f"values of {chosen[0]:g} to {chosen[1]:g} become 0 to 255" in said[0]

    def test_equal_values_become_equal_bytes_whatever_else_a_picture_holds(self, tmp_path):
        files = [deep(tmp_path / "a.png", 0, 200), deep(tmp_path / "b.png", 0, 4000)]
        pixel_format = choose_format(files)
        dark, bright = (decode(file.path, pixel_format) for file in files)
        assert dark.max() == round(200 * 255 / 4095)
        assert bright.max() == round(4000 * 255 / 4095)
        assert len(np.unique(bright)) > 240

    def test_what_is_no_number_is_black_and_counts_for_nothing(self, tmp_path):
        values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
        values[0, :3] = np.nan, np.inf, -np.inf
        Image.fromarray(values).save(tmp_path / "a.tif")
        pixel_format = choose_format([ImageFile(path=tmp_path / "a.tif", label=0)])
        assert pixel_format.pixel_range == (np.float32(3 / 255), 1)
        assert decode(tmp_path / "a.tif", pixel_format)[0, 0, :3].tolist() == [0, 255, 0]

    def test_what_was_chosen_once_is_kept(self, tmp_path):
        files = [deep(tmp_path / "a.png", 0, 4000)]
        assert choose_format(files, WantedFormat(pixel_range=(7, 9))).pixel_range == (7, 9)

    def test_one_picture_in_colour_among_hundreds(self, tmp_path):
        for number in range(450):
            picture(tmp_path / f"{number:03}.png", mode="L")
        picture(tmp_path / "001.png", mode="RGB")
        files = [ImageFile(path=path, label=0) for path in sorted(tmp_path.iterdir())]
        assert choose_format(files).channels == 3

    def test_frames_and_pages_are_said(self, tmp_path):
        frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
        for suffix in (".gif", ".webp", ".png", ".tiff"):
            frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
        frames[0].save(tmp_path / "single.gif")
        said = []
        files = [ImageFile(path=path, label=0) for path in sorted(tmp_path.iterdir())]
        pixel_format = choose_format(files, said=said)
        assert said == ["4 images hold several frames or pages: the first one is read"]
        for file in files:
            red, _, blue = decode(file.path, pixel_format).reshape(3, -1).mean(1)
            assert red > 200 > 50 > blue


@pytest.mark.parametrize(
    ("fit", "edge"), [("cut", (200, 200)), ("pad", (0, 200)), ("squeeze", (50, 200))]
)
def test_pictures_that_are_no_squares(tmp_path, fit, edge):
    pixels = np.full((32, 64), 50, dtype=np.uint8)
    pixels[:, 16:48] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = decode(tmp_path / "a.png", PixelFormat(channels=1, size=32, fit=fit))[0]
    corner, middle = edge
    assert abs(int(found[0, 0]) - corner) <= 2
    assert abs(int(found[16, 16]) - middle) <= 2


def test_a_format_that_cuts_is_told_as_before():
    assert repr(PixelFormat(channels=3, size=8)) == "PixelFormat(channels=3, size=8)"
    assert repr(PixelFormat(channels=3, size=8, fit="pad")).endswith("size=8, fit=pad)")


def test_a_program_that_would_be_run_is_not(tmp_path):
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    )
    with pytest.raises(OSError, match="cannot identify"):
        decode(tmp_path / "a.png", PixelFormat(channels=1, size=8))


def test_what_is_far_from_square_is_said(tmp_path):
    files = []
    for number in range(4):
        files.append(ImageFile(path=tmp_path / f"{number}.png", label=0))
        picture(files[-1].path, size=(64, 24 if number else 64))
    said = []
    choose_format(files, said=said)
    assert said[0].startswith("fit=cut: 3 of 4 images lose more than a quarter")
    said.clear()
    assert choose_format(files, WantedFormat(fit="pad"), said=said).fit == "pad"
    assert said == []
    # A network that states no way looks at the whole of them.
    assert choose_format(files, WantedFormat(own_fit=None), said=said).fit == "squeeze"
    assert said[0].startswith("fit=squeeze: 3 of 4 images would lose more than a quarter")
    assert choose_format(files[:1], WantedFormat(own_fit=None)).fit == "cut"


def test_what_pillow_warns_of_is_counted_and_said_once(tmp_path, capfd):
    picture_formats.cache_clear()  # pytest has its own filters of warnings in each test
    image = Image.fromarray(np.full((16, 16, 3), 90, dtype=np.uint8))
    junk = ("49492a00ffffffff", "4d4d002a00000008ffff01", "ffff2a0008000000")
    for number, content in enumerate(junk):
        exif = b"Exif" + bytes(2) + bytes.fromhex(content)
        image.save(tmp_path / f"{number}.jpg", exif=exif)
    image.save(tmp_path / "whole.jpg", exif=Image.Exif())
    files = [ImageFile(path=path, label=0) for path in sorted(tmp_path.iterdir())]
    said = []
    chosen = choose_format(files, said=said)
    assert said == [
        f"damaged metadata, such as EXIF, is left out of 3 images, the first {tmp_path / '0.jpg'}, "
        "with what it may say of which way is up"
    ]
    for file in files:
        assert decode(file.path, chosen).mean() == 90
    assert capfd.readouterr() == ("", "")


def test_what_others_warn_of_is_shown():
    with pytest.warns(UserWarning, match="of mine"), _warnings_heard():
        warnings.warn("of mine", stacklevel=1)
