import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clips import moving_square, write_clip
from volano.data.sources import ClipFormat, choose_clip_format, decode_clip, read_clip_folder, read_clips_like
from volano.data.sources.video import clips as clips_module
from volano.data.sources.video.clip_files import nearest_frames, read_facts
from volano.errors import DataError, UsageError

GREY = ClipFormat(channels=1, size=32, fps=10.0)


def folder_of(root, num=4, suffix=".mp4", **kwargs):
    for number in range(num):
        write_clip(root / f"clip{number}{suffix}", moving_square(start=3 * number, **kwargs))
    return root


class TestDecoding:
    @pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif", ".webm", ".mkv"])
    def test_the_frames_come_back(self, tmp_path, suffix):
        frames = moving_square(num_frames=12)
        path = write_clip(tmp_path / f"a{suffix}", frames)
        decoded = decode_clip(path, GREY)
        assert decoded.shape == (12, 1, 32, 32)
        assert decoded.dtype == np.uint8
        # Codecs with loss blur the edges of the square; its place in every frame is what counts.
        middle = decoded[:, 0, 16].astype(int)
        for number in range(12):
            assert middle[number, number + 2 : number + 6].min() > 180
            assert middle[number, number + 12 :].max() < 70
        assert read_facts(path).is_grey
        assert read_facts(path).fps == pytest.approx(10, rel=0.01)

    def test_colour(self, tmp_path):
        path = write_clip(tmp_path / "a.mp4", moving_square(colour=(250, 30, 30)))
        assert not read_facts(path).is_grey
        pixels = decode_clip(path, ClipFormat(channels=3, size=32, fps=10.0))[0, :, 16, 3]
        assert pixels[0] > 200 > 100 > pixels[1]

    @pytest.mark.parametrize(("suffix", "num_frames", "begin"), [(".mkv", 20, 9), (".mp4", 150, 70), (".gif", 30, 12)])
    def test_colour_that_comes_later(self, tmp_path, suffix, num_frames, begin):
        frames = np.concatenate([moving_square(begin), moving_square(num_frames - begin, colour=(250, 30, 30))])
        path = write_clip(tmp_path / f"a{suffix}", frames)
        assert not read_facts(path).is_grey
        assert choose_clip_format([path], 16, size=None, fps=None)[0].channels == 3

    def test_files_that_end_early_still_say_what_they_are(self, tmp_path):
        path = write_clip(tmp_path / "a.mkv", moving_square(40))
        whole = read_facts(path)
        path.write_bytes(path.read_bytes()[:9000])
        assert read_facts(path).is_grey
        assert (read_facts(path).width, read_facts(path).fps) == (whole.width, whole.fps)

    def test_wide_clips_are_cut_to_their_centre(self, tmp_path):
        frames = np.zeros((4, 32, 64, 3), dtype=np.uint8)
        frames[:, :, 16:48] = 200  # the centred square is bright, the rest dark
        path = write_clip(tmp_path / "a.mp4", frames)
        assert decode_clip(path, GREY).min() > 150
        assert decode_clip(path, ClipFormat(channels=1, size=16, fps=10.0)).shape == (4, 1, 16, 16)

    @pytest.mark.parametrize(("fps", "count"), [(5, 10), (10, 20), (20, 40), (7, 14)])
    def test_resampling_keeps_the_duration(self, tmp_path, fps, count):
        path = write_clip(tmp_path / "a.mp4", moving_square(num_frames=20), fps=10)
        assert len(decode_clip(path, ClipFormat(channels=1, size=32, fps=fps))) == count

    def test_half_the_rate_is_every_second_frame(self, tmp_path):
        path = write_clip(tmp_path / "a.mkv", moving_square(num_frames=20), fps=10)
        assert np.array_equal(decode_clip(path, ClipFormat(channels=1, size=32, fps=5.0)), decode_clip(path, GREY)[::2])

    @given(st.integers(1, 40), st.floats(1, 60), st.floats(1, 60))
    def test_nearest_frames_are_nearest(self, num, fps, wanted):
        times = np.arange(num) / fps
        chosen = nearest_frames(times, fps, wanted)
        moments = np.arange(len(chosen)) / wanted
        assert (np.diff(chosen) >= 0).all()
        best = np.abs(times[None] - moments[:, None]).min(1)
        assert np.abs(times[chosen] - moments) == pytest.approx(best, abs=1e-9)
        assert abs(len(chosen) / wanted - num / fps) <= 0.5 / wanted + 1 / wanted

    @pytest.mark.parametrize(
        ("content", "reason"),
        [(b"", "Invalid data"), (b"this is no clip" * 50, "Invalid data"), (b"\x00" * 4000, "Invalid data|moov")],
    )
    def test_rubbish_says_why(self, tmp_path, content, reason):
        path = tmp_path / "a.mp4"
        path.write_bytes(content)
        with pytest.raises(OSError, match=reason):
            decode_clip(path, GREY)

    def test_a_cut_file_says_why(self, tmp_path):
        path = write_clip(tmp_path / "a.mp4", moving_square())
        path.write_bytes(path.read_bytes()[:500])  # the index stands at the end
        with pytest.raises(OSError, match=r"Invalid data|moov"):
            decode_clip(path, GREY)

    def test_a_codec_that_is_missing_is_named(self, tmp_path):
        path = write_clip(tmp_path / "a.avi", moving_square())
        path.write_bytes(path.read_bytes().replace(b"FMP4", b"ZZZZ"))
        with pytest.raises(OSError, match="this FFmpeg has no decoder for its codec"):
            decode_clip(path, GREY)

    def test_a_sound_without_pictures(self, tmp_path):
        import av

        path = tmp_path / "a.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
            sound.sample_rate = 8000
            container.mux(stream.encode(sound))
            container.mux(stream.encode())
        with pytest.raises(OSError, match="no pictures that move"):
            decode_clip(path, GREY)


class TestFolder:
    def test_a_folder_of_clips(self, tmp_path):
        sets = read_clip_folder(folder_of(tmp_path, num=7), num_frames=16)
        assert sets.train.frames.shape == (6, 20, 1, 32, 32)
        assert sets.test.frames.shape == (1, 16, 1, 32, 32)
        assert sets.train.classes == ()
        assert sets.is_held_out
        assert sets.fps == 10
        assert not set(sets.train.names) & set(sets.test.names)
        assert sets.notices == ("no colour in the 7 clips looked at: all are read in grey",)

    def test_class_folders(self, tmp_path):
        for name in ("left", "right"):
            folder_of(tmp_path / name, num=3, speed=1 if name == "left" else 2)
        sets = read_clip_folder(tmp_path, num_frames=8)
        assert sets.train.classes == ("left", "right")
        assert sorted(sets.train.labels.tolist()) == [0, 0, 1, 1]
        assert sorted(set(sets.test.labels.tolist())) == [0, 1]
        for name, label in zip(sets.train.names, sets.train.labels.tolist(), strict=True):
            assert name.startswith(("left", "right")[label])

    def test_loose_clips_beside_folders_have_no_classes(self, tmp_path):
        folder_of(tmp_path / "left", num=2)
        folder_of(tmp_path / "right", num=2, speed=2)
        write_clip(tmp_path / "loose.mp4", moving_square(speed=3))
        sets = read_clip_folder(tmp_path, num_frames=8)
        assert sets.train.classes == ()
        assert len(sets.train) + len(set(sets.test.names)) == 5

    def test_given_splits(self, tmp_path):
        folder_of(tmp_path / "train", num=3)
        folder_of(tmp_path / "test", num=2, speed=2)
        sets = read_clip_folder(tmp_path, num_frames=10)
        assert len(sets.train) == 3
        assert sets.test.frames.shape[:2] == (4, 10)  # twenty frames are two windows of ten
        assert not sets.is_held_out

    def test_what_lies_beside_the_splits_is_said(self, tmp_path):
        for name, num in (("train", 3), ("test", 2), ("val", 4), ("extra", 1), ("empty", 0)):
            folder_of(tmp_path / name, num=num)
            (tmp_path / name).mkdir(exist_ok=True)
        write_clip(tmp_path / "loose.mp4", moving_square())
        sets = read_clip_folder(tmp_path, num_frames=20)
        assert (len(sets.train), len(sets.test)) == (3, 2)
        assert sets.notices[0] == (
            "clips are read from train/ and test/; left out: 1 in extra/, 4 in val/, 1 in no folder"
        )

    def test_val_where_test_holds_nothing(self, tmp_path):
        for name, num in (("train", 3), ("test", 0), ("val", 2)):
            folder_of(tmp_path / name, num=num)
            (tmp_path / name).mkdir(exist_ok=True)
        sets = read_clip_folder(tmp_path, num_frames=20)
        assert (len(sets.train), len(sets.test), sets.is_held_out) == (3, 2, False)
        assert not any("left out" in text for text in sets.notices)

    def test_long_clips_are_cut_into_pieces(self, tmp_path):
        folder_of(tmp_path, num=2, num_frames=70)
        sets = read_clip_folder(tmp_path, num_frames=8)
        assert sets.train.frames.shape[:2] == (2, 32)
        assert sets.train.lengths.tolist() == [32, 32]  # of 70 frames the last 6 are fewer than a clip
        assert len(sets.test) == 8

    def test_padding_repeats_the_last_frame(self, tmp_path):
        write_clip(tmp_path / "a.mkv", moving_square(num_frames=12))
        for number in (1, 2):
            write_clip(tmp_path / f"b{number}.mkv", moving_square(num_frames=20, speed=2, start=number))
        sets = read_clip_folder(tmp_path, num_frames=8, seed=0)
        lengths = dict(zip(sets.train.names, sets.train.lengths.tolist(), strict=True))
        assert set(lengths.values()) <= {12, 20}
        if "a.mkv" in lengths:
            clip = sets.train.frames[sets.train.names.index("a.mkv")]
            assert torch.equal(clip[12:], clip[11:12].expand(8, -1, -1, -1))

    def test_copies_stay_on_one_side(self, tmp_path):
        content = write_clip(tmp_path / "a.mp4", moving_square()).read_bytes()
        for number in range(5):
            (tmp_path / f"copy{number}.mp4").write_bytes(content)
        write_clip(tmp_path / "other.mp4", moving_square(speed=2))
        sets = read_clip_folder(tmp_path, num_frames=16)
        assert {len(sets.train), len(set(sets.test.names))} == {1, 6}

    def test_mixed_sizes_and_rates_are_said(self, tmp_path):
        write_clip(tmp_path / "a.mp4", moving_square(num_frames=20, size=(64, 48)), fps=10)
        write_clip(tmp_path / "b.mp4", moving_square(num_frames=40, size=(32, 32)), fps=20)
        write_clip(tmp_path / "c.gif", moving_square(num_frames=20, size=(32, 40)), fps=10)
        sets = read_clip_folder(tmp_path, num_frames=16)
        assert sets.train.frames.shape[1:] == (20, 1, 32, 32)
        assert any("3 sizes are cut to a centred square and scaled to 32 pixels" in text for text in sets.notices)
        assert any("clips of 10 to 20 frames a second are resampled to 10" in text for text in sets.notices)

    def test_broken_and_short_clips_are_listed(self, tmp_path):
        folder_of(tmp_path, num=12)
        (tmp_path / "broken.mp4").write_bytes(b"no clip" * 100)
        write_clip(tmp_path / "short.mp4", moving_square(num_frames=5))
        sets = read_clip_folder(tmp_path, num_frames=16)
        reasons = {fault.path.rsplit("/", 1)[1]: fault.reason for fault in sets.faults}
        assert reasons["broken.mp4"].startswith("unreadable: Invalid data")
        assert reasons["short.mp4"] == "too short: 5 frames at 10 a second, asked 16"
        assert len(sets.train) + len(sets.test) == 12
        assert any("1 clips are too short" in text for text in sets.notices)

    def test_too_many_broken_ones(self, tmp_path):
        folder_of(tmp_path, num=2)
        for number in range(3):
            (tmp_path / f"broken{number}.mp4").write_bytes(b"no clip" * 100)
        with pytest.raises(DataError, match=r"At most 10% of the clips are unreadable; got 3 of 5"):
            read_clip_folder(tmp_path, num_frames=16)

    def test_all_too_short(self, tmp_path):
        with pytest.raises(DataError, match=r"at least 64 frames; got 20 in the longest.*fewer --frames"):
            read_clip_folder(folder_of(tmp_path), num_frames=64)

    def test_one_clip(self, tmp_path):
        with pytest.raises(DataError, match="at least two different clips"):
            read_clip_folder(folder_of(tmp_path, num=1), num_frames=16)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(DataError, match="A folder of clips holds some"):
            read_clip_folder(tmp_path, num_frames=16)
        with pytest.raises(UsageError, match="Clips come from a folder; got .*which is not there"):
            read_clip_folder(tmp_path / "gone", num_frames=16)
        (tmp_path / "file.mp4").write_bytes(b"")
        with pytest.raises(UsageError, match="which is a file"):
            read_clip_folder(tmp_path / "file.mp4", num_frames=16)

    def test_memory_is_counted(self, tmp_path, monkeypatch):
        monkeypatch.setattr("volano.device.Device.free_bytes", lambda self: 50_000)
        with pytest.raises(DataError, match=r"at most half of the free memory.*--image-size or --fps"):
            read_clip_folder(folder_of(tmp_path), num_frames=16)

    def test_padding_is_counted(self, tmp_path, monkeypatch):
        for number in range(7):  # 8 frames each; as long as the longest they are four times that
            write_clip(tmp_path / f"short{number}.mp4", moving_square(num_frames=8, start=number))
        for number in range(3):
            write_clip(tmp_path / f"long{number}.mp4", moving_square(num_frames=32, start=number))
        of_files = (7 * 8 + 3 * 32) * 32 * 32
        monkeypatch.setattr("volano.device.Device.free_bytes", lambda self: 2 * of_files)
        with pytest.raises(DataError, match=r"at most half of the free memory.*fewer --frames"):
            read_clip_folder(tmp_path, num_frames=8)
        monkeypatch.setattr("volano.device.Device.free_bytes", lambda self: 2 * 10 * 32 * 32 * 32)
        assert len(read_clip_folder(tmp_path, num_frames=8).train.frames) == 8

    def test_long_fast_clips_are_slowed(self, tmp_path):
        path = write_clip(tmp_path / "a.mp4", moving_square(num_frames=300), fps=60)
        assert choose_clip_format([path], 16, size=None, fps=None)[0].fps == 15.0
        short = write_clip(tmp_path / "b.mp4", moving_square(num_frames=30), fps=60)
        assert choose_clip_format([short], 16, size=None, fps=None)[0].fps == 60.0

    def test_large_frames_are_scaled_down(self, tmp_path):
        path = write_clip(tmp_path / "a.mp4", moving_square(num_frames=4, size=(160, 120)))
        chosen, notices = choose_clip_format([path], 16, size=None, fps=None)
        assert chosen.size == clips_module.LARGEST_AUTOMATIC_SIZE
        assert "160x120 are cut to a centred square" in notices[0]


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
        clips, _, _ = read_clips_like(tmp_path, GREY, num_frames=20, classes=("left", "middle", "right"))
        assert clips.labels.tolist() == [0, 2]
        with pytest.raises(DataError, match="sub-folders named like the run's classes; got also left"):
            read_clips_like(tmp_path, GREY, num_frames=20, classes=("middle", "right"))
