"""Decoded pixels that are kept on disk."""

import numpy as np
import pytest
import torch

from data.sources.image.test_image_files import NUM, read
from volano.apps.image.application import ImageApplication
from volano.apps.image.options import ImageOptions
from volano.data.sources import ImageFiles, PixelFormat, WantedFormat, read_image_sets
from volano.device import Device
from volano.errors import DataError


class TestCache:
    def test_pixels_come_from_it_and_faults_stay_faults(
        self, photographs, little_memory, tmp_path, monkeypatch
    ):
        import pickle
        import shutil

        root = shutil.copytree(photographs, tmp_path / "photographs")
        (root / "china" / "003.jpg").write_bytes(b"no image")
        plain = read(root).train.images
        cached = plain.cached(tmp_path / "cache")
        # Nothing is decoded any more.
        monkeypatch.setattr("volano.data.sources.image.image_files.decode", None)
        rows = [5, 100, 2]
        picked = pickle.loads(pickle.dumps(cached.select(rows).select([1])))
        monkeypatch.undo()
        assert torch.equal(picked[0], plain[100])
        with pytest.raises(OSError, match="cannot identify"):
            cached[3]
        (folder,) = (tmp_path / "cache").iterdir()
        assert {path.name for path in folder.iterdir()} == {"pixels.npy", "faults.json"}
        plain.cached(tmp_path / "cache")
        assert list((tmp_path / "cache").iterdir()) == [folder]
        (root / "china" / "004.jpg").write_bytes((root / "china" / "005.jpg").read_bytes())
        assert torch.equal(
            read_image_sets(root, WantedFormat(size=64)).train.in_memory([4])[0],
            plain.select([5])[0][None],
        )
        plain.cached(tmp_path / "cache")
        assert len(list((tmp_path / "cache").iterdir())) == 2  # a changed file: another cache

    def test_every_way_to_the_pixels_goes_through_it(
        self, photographs, little_memory, tmp_path, monkeypatch
    ):
        import shutil
        from dataclasses import replace

        root = shutil.copytree(photographs, tmp_path / "photographs")
        (root / "china" / "003.jpg").write_bytes(b"no image")
        plain = read(root).train
        cached = replace(plain, images=plain.images.cached(tmp_path / "cache"))
        rows = [5, 3, 100, 2]
        expected, about = plain.in_memory(rows)
        shutil.rmtree(root)  # the pixels are in the cache
        pixels, mine = cached.in_memory(rows)
        assert torch.equal(pixels, expected)
        assert mine.names == about.names
        assert torch.equal(mine.labels, about.labels)
        assert [(fault.index, fault.path) for fault in mine.faults] == [
            (3, str(root / "china" / "003.jpg"))
        ]
        assert mine.faults == about.faults
        assert len(cached.sample()[0]) == len(cached.first(1000)[0]) == 2 * NUM
        assert sum(len(part) for _, part in cached.parts()) == 2 * NUM

    def test_a_missing_file_has_a_row(self, photographs, tmp_path):
        paths = tuple(sorted((photographs / "flower").iterdir())[:3])
        gone = tmp_path / "gone.jpg"
        pixel_format = PixelFormat(channels=3, size=16)
        plain = ImageFiles(paths, pixel_format)
        assert torch.equal(plain.cached(tmp_path / "cache")[0], plain[0])
        more = ImageFiles((gone, *paths), pixel_format).cached(tmp_path / "cache")
        assert torch.equal(more[1], plain[0])
        with pytest.raises(OSError, match="No such file"):
            more[0]
        assert len(list((tmp_path / "cache").iterdir())) == 2

    def test_an_array_of_another_shape_is_named(self, photographs, tmp_path):
        images = ImageFiles(
            tuple(sorted((photographs / "flower").iterdir())[:3]), PixelFormat(channels=3, size=16)
        )
        images.cached(tmp_path)
        (folder,) = tmp_path.iterdir()
        np.save(folder / "pixels.npy", np.zeros((2, 3, 16, 16), dtype=np.uint8))
        message = (
            rf"{folder} \(pixels.npy and faults.json\).*\[2, 3, 16, 16\] instead of .*\[3, "
            r"3, 16, 16\].*Remove"
        )
        with pytest.raises(DataError, match=message):
            images.cached(tmp_path)
        (folder / "faults.json").unlink()
        with pytest.raises(DataError, match=r"faults\.json"):
            images.cached(tmp_path)

    @pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
    def test_a_full_disk_is_an_error_that_leaves_nothing(
        self, photographs, tmp_path, monkeypatch, call
    ):
        import errno
        import os

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        images = ImageFiles(
            tuple(sorted((photographs / "flower").iterdir())[:3]), PixelFormat(channels=3, size=16)
        )
        monkeypatch.setattr(os, call, full)
        with pytest.raises(DataError, match=r"pixels\.npy and faults\.json.*No space left"):
            images.cached(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_a_file_system_that_cannot_reserve_space_still_holds_a_cache(
        self, photographs, tmp_path, monkeypatch
    ):
        import errno
        import os

        def unsupported(*_):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

        images = ImageFiles(
            tuple(sorted((photographs / "flower").iterdir())[:3]), PixelFormat(channels=3, size=16)
        )
        monkeypatch.setattr(os, "posix_fallocate", unsupported)
        assert torch.equal(images.cached(tmp_path)[2], images[2])

    def test_of_two_that_write_the_first_stands(self, photographs, tmp_path, monkeypatch):
        import os

        from volano.data.sources.image import image_cache

        images = ImageFiles(
            tuple(sorted((photographs / "flower").iterdir())[:3]), PixelFormat(channels=3, size=16)
        )
        other = (
            tmp_path
            / f"{image_cache._digest(images.paths, images.pixel_format)}.partial-{os.getpid()}"
        )
        other.mkdir()  # of a process with this one's number, on another machine
        (other / "work").write_text("of somebody else")
        real, firsts = image_cache.decode, []

        def slow(path, pixel_format):
            if not firsts:
                firsts.append(None)
                firsts[0] = images.cached(tmp_path)
            return real(path, pixel_format)

        monkeypatch.setattr(image_cache, "decode", slow)
        monkeypatch.setattr(os, "cpu_count", lambda: 1)
        second = images.cached(tmp_path)
        assert torch.equal(second[1], images[1])
        assert torch.equal(firsts[0][1], images[1])
        assert (other / "work").read_text() == "of somebody else"
        assert len(list(tmp_path.iterdir())) == 2

    def test_it_leaves_half_of_the_disk(self, photographs, little_memory, tmp_path, monkeypatch):
        import shutil

        monkeypatch.setattr(
            shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**7, 9 * 10**6, 10**6)
        )
        with pytest.raises(DataError, match="at most 50% of the free disk space"):
            read(photographs).train.images.cached(tmp_path / "cache")
        assert not list((tmp_path / "cache").iterdir())

    def test_the_application_says_so(self, photographs, tmp_path, monkeypatch):
        options = ImageOptions(
            path=str(photographs), image_size=64, image_cache=str(tmp_path / "cache"), flip="no"
        )
        assert any(
            "image_cache has no effect" in notice
            for notice in ImageApplication.read(options).notices
        )
        monkeypatch.setattr(Device, "free_bytes", lambda self: 1_000_000)
        application = ImageApplication.read(options)
        assert any("decoded once, into" in notice for notice in application.notices)
        assert not any("again" in notice for notice in application.notices)
        assert application.train.images.cache is not None
