"""Frames of clip files: rates, colour, sizes, and what cannot be read."""

from pathlib import Path

import numpy as np
import pytest

from clips import moving_square, write_clip
from volano.data.sources import ClipFormat, choose_clip_format, decode_clip
from volano.data.sources.video.clip_files import ClipBudget, read_facts
from volano.errors import DataError

GREY = ClipFormat(channels=1, size=32, fps=10.0)


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

    @pytest.mark.parametrize("name", ["http:a.mp4", "concat:a|b.mp4", "-i.mp4", "file:a.gif"])
    def test_a_name_is_no_address(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        written = write_clip(tmp_path / f"plain{Path(name).suffix}", moving_square(num_frames=12))
        written.rename(tmp_path / name)
        assert len(decode_clip(Path(name), GREY)) == 12

    @pytest.mark.parametrize(
        "text",
        [
            "ffconcat version 1.0\nfile 'a.mp4'\n",
            "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\na.mp4\n#EXT-X-ENDLIST\n",
        ],
    )
    def test_a_playlist_opens_no_other_file(self, tmp_path, text):
        write_clip(tmp_path / "a.mp4", moving_square(num_frames=12))
        (tmp_path / "list.mkv").write_text(text)
        with pytest.raises(OSError, match="Invalid"):
            decode_clip(tmp_path / "list.mkv", GREY)

    def test_colour(self, tmp_path):
        path = write_clip(tmp_path / "a.mp4", moving_square(colour=(250, 30, 30)))
        assert not read_facts(path).is_grey
        pixels = decode_clip(path, ClipFormat(channels=3, size=32, fps=10.0))[0, :, 16, 3]
        assert pixels[0] > 200 > 100 > pixels[1]

    @pytest.mark.parametrize(
        ("suffix", "num_frames", "begin"), [(".mkv", 20, 9), (".mp4", 150, 70), (".gif", 30, 12)]
    )
    def test_colour_that_comes_later(self, tmp_path, suffix, num_frames, begin):
        frames = np.concatenate(
            [moving_square(begin), moving_square(num_frames - begin, colour=(250, 30, 30))]
        )
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
        assert np.array_equal(
            decode_clip(path, ClipFormat(channels=1, size=32, fps=5.0)),
            decode_clip(path, GREY)[::2],
        )

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "Invalid data"),
            (b"this is no clip" * 50, "Invalid data"),
            (b"\x00" * 4000, "Invalid data|moov"),
        ],
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
            sound = av.AudioFrame.from_ndarray(
                np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono"
            )
            sound.sample_rate = 8000
            container.mux(stream.encode(sound))
            container.mux(stream.encode())
        with pytest.raises(OSError, match="no pictures that move"):
            decode_clip(path, GREY)


class TestTimes:
    """Files whose frames do not follow each other at the rate that their header states."""

    TIMES = (0.0, 0.1, 0.2, 0.3, 2.0, 2.1, 2.95)

    @pytest.mark.parametrize("fps", [5, 10])
    def test_each_moment_gets_the_frame_of_its_time(self, tmp_path, fps):
        frames = moving_square(num_frames=len(self.TIMES))
        path = write_clip(tmp_path / "a.mkv", frames, times=self.TIMES)
        every = decode_clip(path, ClipFormat(channels=1, size=32, fps=1000.0))
        found = decode_clip(path, ClipFormat(channels=1, size=32, fps=float(fps)))
        assert 2.9 * fps <= len(found) <= 3.1 * fps + 1
        for number, frame in enumerate(found):
            nearest = np.abs(np.array(self.TIMES) - number / fps).argmin()
            assert np.array_equal(frame, every[round(1000 * self.TIMES[nearest])])

    def test_a_clock_that_is_set_takes_no_memory(self, tmp_path):
        times = [0.1 * number + (80_000 if number >= 6 else 0) for number in range(12)]
        path = write_clip(tmp_path / "a.mkv", moving_square(num_frames=12), times=times)
        said = []
        assert len(decode_clip(path, GREY, said=said)) == 12
        assert said == ["the clock of its frames jumps 1 times, and is read without jumps"]

    def test_memory_is_counted_before_it_is_taken(self, tmp_path):
        times = [0, 59, 118]
        path = write_clip(tmp_path / "a.mkv", moving_square(num_frames=3), times=times)
        budget = ClipBudget()
        budget.limit = 1200 * 32 * 32
        with pytest.raises(DataError, match="at most half of the free memory"):
            decode_clip(path, ClipFormat(channels=1, size=32, fps=240.0), budget=budget)
        assert len(decode_clip(path, GREY, budget=ClipBudget())) == 1770


class TestDamage:
    def test_good_frames_are_kept(self, tmp_path):
        frames = moving_square(num_frames=12)
        whole = decode_clip(write_clip(tmp_path / "whole.mkv", frames, codec="mjpeg"), GREY)
        path = write_clip(tmp_path / "a.mkv", frames, codec="mjpeg", spoil=(4, 5))
        said = []
        found = decode_clip(path, GREY, said=said)
        assert said == ["2 frames are missing, 10 are good"]
        assert np.array_equal(found[:4], whole[:4])
        assert np.array_equal(found[6:], whole[6:])
        assert np.array_equal(found[4], whole[3])

    def test_nothing_good_says_why(self, tmp_path):
        path = write_clip(
            tmp_path / "a.mkv", moving_square(num_frames=3), codec="mjpeg", spoil=(0, 1, 2)
        )
        with pytest.raises(OSError, match="Invalid data"):
            decode_clip(path, GREY)

    def test_a_clock_that_begins_late_is_no_lack_of_frames(self, tmp_path):
        times = [3600 + number / 10 for number in range(8)]
        path = write_clip(tmp_path / "a.mkv", moving_square(num_frames=8), times=times)
        said = []
        assert len(decode_clip(path, GREY, said=said)) == 8
        assert not said
        assert read_facts(path).num_frames < 20

    def test_files_that_end_early_say_how_much_is_missing(self, tmp_path):
        path = write_clip(tmp_path / "a.mkv", moving_square(num_frames=40))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        said = []
        num = len(decode_clip(path, GREY, said=said))
        assert 5 < num < 35
        assert f"{40 - num} frames are missing, {num} are good" in said[0]
