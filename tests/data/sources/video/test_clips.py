import numpy as np
import pytest
import torch

from clips import moving_square, write_clip
from volano.data.sources import ClipFormat, read_clip_folder, read_clips_like, spread_frames
from volano.errors import DataError, UsageError

GREY = ClipFormat(channels=1, size=32, fps=10.0)


def folder_of(root, num=4, suffix=".mp4", **kwargs):
    for number in range(num):
        write_clip(root / f"clip{number}{suffix}", moving_square(start=3 * number, **kwargs))
    return root


class TestFolder:
    def test_a_folder_of_clips(self, tmp_path):
        sets = read_clip_folder(folder_of(tmp_path, num=7), num_frames=16)
        assert sets.train.frames.shape[1:] == (20, 1, 32, 32)
        assert sets.test.frames.shape[1:] == (16, 1, 32, 32)
        assert (len(sets.train), len(sets.test)) in {(6, 1), (5, 2)}
        assert sets.train.classes == ()
        assert sets.is_held_out
        assert sets.fps == 10
        assert not set(sets.train.names) & set(sets.test.names)
        assert sets.notices == ("no colour in the 7 clips looked at: all are read in grey",)

    def test_long_clips_are_cut_into_pieces(self, tmp_path):
        folder_of(tmp_path, num=2, num_frames=70)
        sets = read_clip_folder(tmp_path, num_frames=8)
        assert sets.train.frames.shape[:2] == (2, 32)
        # Of 70 frames the last 6 are fewer than a clip.
        assert sets.train.lengths.tolist() == [32, 32]
        assert len(sets.test) == 8

    def test_padding_repeats_the_last_frame(self, tmp_path):
        write_clip(tmp_path / "a.mkv", moving_square(num_frames=12))
        for number in (1, 2):
            write_clip(
                tmp_path / f"b{number}.mkv", moving_square(num_frames=20, speed=2, start=number)
            )
        sets = read_clip_folder(tmp_path, num_frames=8, seed=0)
        lengths = dict(zip(sets.train.names, sets.train.lengths.tolist(), strict=True))
        assert set(lengths.values()) <= {12, 20}
        if "a.mkv" in lengths:
            clip = sets.train.frames[sets.train.names.index("a.mkv")]
            assert torch.equal(clip[12:], clip[11:12].expand(8, -1, -1, -1))

    def test_whole_clips_of_any_length_are_one_example_each(self, tmp_path):
        for start, name in enumerate(("a", "b")):
            for number in (1, 2, 3):
                frames = moving_square(num_frames=5 * number, speed=number, start=start)
                write_clip(tmp_path / name / f"{number}.gif", frames)
        sets = read_clip_folder(tmp_path, num_frames=8, whole=True)
        assert sets.train.frames.shape[:2] == (4, 8)
        assert sets.test.frames.shape[:2] == (2, 8)
        assert sets.train.lengths.tolist() == [8] * 4
        assert sets.train.select([2, 0]).names == (sets.train.names[2], sets.train.names[0])
        every = np.arange(5)
        assert spread_frames(every, 8).tolist() == [0, 0, 1, 2, 2, 3, 4, 4]
        assert spread_frames(np.arange(12), 4).tolist() == [1, 4, 7, 10]

    def test_copies_stay_on_one_side(self, tmp_path):
        content = write_clip(tmp_path / "a.mp4", moving_square()).read_bytes()
        for number in range(5):
            (tmp_path / f"copy{number}.mp4").write_bytes(content)
        write_clip(tmp_path / "other.mp4", moving_square(speed=2))
        sets = read_clip_folder(tmp_path, num_frames=16)
        # All copies are trained on, or one of them is tested.
        assert (len(sets.train), len(set(sets.test.names))) in {(6, 1), (1, 1)}

    def test_mixed_sizes_and_rates_are_said(self, tmp_path):
        write_clip(tmp_path / "a.mp4", moving_square(num_frames=20, size=(64, 48)), fps=10)
        write_clip(tmp_path / "b.mp4", moving_square(num_frames=40, size=(32, 32)), fps=20)
        write_clip(tmp_path / "c.gif", moving_square(num_frames=20, size=(32, 40)), fps=10)
        sets = read_clip_folder(tmp_path, num_frames=16)
        assert sets.train.frames.shape[1:] == (20, 1, 32, 32)
        assert any(
            "3 sizes are cut to a centred square and scaled to 32 pixels" in text
            for text in sets.notices
        )
        assert any(
            "clips of 10 to 20 frames a second are resampled to 10" in text for text in sets.notices
        )

    def test_broken_and_short_clips_are_listed(self, tmp_path):
        folder_of(tmp_path, num=12)
        (tmp_path / "broken.mp4").write_bytes(b"no clip" * 100)
        write_clip(tmp_path / "short.mp4", moving_square(num_frames=5))
        sets = read_clip_folder(tmp_path, num_frames=16)
        reasons = {fault.path.rsplit("/", 1)[1]: fault.reason for fault in sets.faults}
        assert reasons["broken.mp4"].startswith("unreadable: Invalid data")
        assert reasons["short.mp4"] == "too short: 5 frames at 10 a second, asked 16"
        left_out = sum("exact copies of held-out" in text for text in sets.notices)  # 11 is as 0
        assert len(sets.train) + len(sets.test) == 12 - left_out
        assert any("1 clips are too short" in text for text in sets.notices)

    def test_damaged_clips_keep_their_good_frames(self, tmp_path):
        folder_of(tmp_path, num=4)
        write_clip(tmp_path / "a.mkv", moving_square(speed=2), codec="mjpeg", spoil=(7, 8, 9))
        sets = read_clip_folder(tmp_path, num_frames=16)
        assert len(set(sets.train.names) | set(sets.test.names)) == 5
        assert sets.notices[-1] == (
            f"1 damaged clip; the first: {tmp_path / 'a.mkv'}: 3 frames are missing, 17 are good"
        )

    def test_too_many_broken_ones(self, tmp_path):
        folder_of(tmp_path, num=2)
        for number in range(3):
            (tmp_path / f"broken{number}.mp4").write_bytes(b"no clip" * 100)
        with pytest.raises(
            DataError, match=r"At most 10% of the clips may be unreadable; got 3 of 5"
        ):
            read_clip_folder(tmp_path, num_frames=16)

    def test_all_too_short(self, tmp_path):
        with pytest.raises(
            DataError, match=r"at least 64 frames; got 20 in the longest.*fewer `frames`"
        ):
            read_clip_folder(folder_of(tmp_path), num_frames=64)

    def test_one_clip(self, tmp_path):
        with pytest.raises(DataError, match="at least two different clips"):
            read_clip_folder(folder_of(tmp_path, num=1), num_frames=16)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(DataError, match="A folder of clips must hold some"):
            read_clip_folder(tmp_path, num_frames=16)
        with pytest.raises(UsageError, match="`path` must exist; got "):
            read_clip_folder(tmp_path / "gone", num_frames=16)
        (tmp_path / "file.mp4").write_bytes(b"")
        with pytest.raises(UsageError, match="which is a file"):
            read_clip_folder(tmp_path / "file.mp4", num_frames=16)

    def test_memory_is_counted(self, tmp_path, monkeypatch):
        monkeypatch.setattr("volano.device.Device.free_bytes", lambda self: 50_000)
        with pytest.raises(
            DataError, match=r"at most half of the free memory.*`image_size` or `fps`"
        ):
            read_clip_folder(folder_of(tmp_path), num_frames=16)

    def test_padding_is_counted(self, tmp_path, monkeypatch):
        for number in range(7):  # 8 frames each; as long as the longest they are four times that
            write_clip(tmp_path / f"short{number}.mp4", moving_square(num_frames=8, start=number))
        for number in range(3):
            write_clip(tmp_path / f"long{number}.mp4", moving_square(num_frames=32, start=number))
        of_files = (7 * 8 + 3 * 32) * 32 * 32
        monkeypatch.setattr("volano.device.Device.free_bytes", lambda self: 2 * of_files)
        with pytest.raises(DataError, match=r"at most half of the free memory.*fewer `frames`"):
            read_clip_folder(tmp_path, num_frames=8)
        monkeypatch.setattr("volano.device.Device.free_bytes", lambda self: 2 * 10 * 32 * 32 * 32)
        assert len(read_clip_folder(tmp_path, num_frames=8).train.frames) in {8, 9}


class TestLikeAnotherSet:
    def test_windows_of_every_clip(self, tmp_path):
        folder_of(tmp_path, num=2, size=(48, 48))
        clips, faults, notices = read_clips_like(tmp_path, GREY, num_frames=10, classes=())
        assert clips.frames.shape == (4, 10, 1, 32, 32)
        assert faults == ()
        assert "scaled to 32 pixels" in notices[0]

    def test_only_the_test_part(self, tmp_path):
        for name, num in (("train", 3), ("test", 2), ("val", 1)):
            folder_of(tmp_path / name, num=num)
        clips, _, notices = read_clips_like(tmp_path, GREY, num_frames=20, classes=())
        assert clips.names == ("test/clip0.mp4", "test/clip1.mp4")
        assert "left out: 1 in val/" in notices[0]
        assert notices[1] == "clips to train on are not evaluated"

    def test_colour_that_is_lost_is_said(self, tmp_path):
        folder_of(tmp_path, num=1, size=(32, 32), colour=(250, 30, 30))
        clips, _, notices = read_clips_like(tmp_path, GREY, num_frames=20, classes=())
        assert clips.frames.shape[2] == 1
        assert notices == ("clips in colour are read in grey, as the run's are",)
        coloured = ClipFormat(channels=3, size=32, fps=10.0)
        assert read_clips_like(tmp_path, coloured, num_frames=20, classes=())[2] == ()

    def test_classes_by_name(self, tmp_path):
        for name in ("right", "left"):
            folder_of(tmp_path / name, num=1)
        clips, _, _ = read_clips_like(
            tmp_path, GREY, num_frames=20, classes=("left", "middle", "right")
        )
        assert clips.labels.tolist() == [0, 2]
        with pytest.raises(
            DataError, match="sub-folders named like the run's classes; got also left"
        ):
            read_clips_like(tmp_path, GREY, num_frames=20, classes=("middle", "right"))
