"""Frames of clip files: rates, colour, sizes, and what cannot be read."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import moving_square, write_clip
from volano.data.sources import ClipFormat, choose_clip_format, decode_clip
from volano.data.sources.video.clip_files import nearest_frames, read_facts

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
