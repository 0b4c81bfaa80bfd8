import av
import numpy as np
import pytest
from PIL import Image

from volano.errors import RunError
from volano.report import enlarged, tiled, write_gif, write_grid, write_mp4, write_predictions


def clips(count=3, frames=5, channels=1, size=16):
    """Clip n has grey level 40 n + 10 t."""
    levels = 40 * np.arange(count)[:, None] + 10 * np.arange(frames)[None]
    return np.broadcast_to(
        levels[:, :, None, None, None], (count, frames, channels, size, size)
    ).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_clips_side_by_side(channels):
    canvas = tiled(clips(count=3, channels=channels))
    frames, height, width, _ = canvas.shape
    assert frames == 5
    assert height == width >= 250
    tile = height // 2
    assert canvas[2, tile // 2, tile // 2].tolist() == [20] * 3
    assert canvas[2, tile // 2, tile + tile // 2].tolist() == [60] * 3
    assert canvas[2, tile + tile // 2, tile // 2].tolist() == [100] * 3


def test_one_clip_enlarged():
    assert enlarged(clips()[0]).shape == (5, 256, 256, 3)
    assert enlarged(clips(size=300)[0]).shape == (5, 300, 300, 3)


@pytest.mark.parametrize(
    ("fps", "milliseconds"), [(10, 100), (50, 20), (0.1, 10_000), (0.001, 655_350)]
)
def test_a_gif_plays_at_its_rate(tmp_path, fps, milliseconds):
    assert write_gif(tiled(clips()), tmp_path / "a.gif", fps=fps) is None
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 5
        assert image.info["duration"] == milliseconds
        assert image.info["loop"] == 0


def test_a_gif_that_would_be_too_fast_says_so(tmp_path):
    said = write_gif(tiled(clips()), tmp_path / "a.gif", fps=60)
    assert (
        said
        == "a.gif plays at 50 frames a second instead of 60: browsers show none that are faster"
    )
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["duration"] == 20


@pytest.mark.parametrize("fps", [10, 12.5, 29.97])
def test_an_mp4_is_h264_and_plays_at_its_rate(tmp_path, fps):
    path = tmp_path / "a.mp4"
    assert write_mp4(tiled(clips(size=15)), path, fps=fps) is None
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert float(stream.average_rate) == pytest.approx(fps, rel=1e-3)
        decoded = [frame.to_ndarray(format="gray") for frame in container.decode(stream)]
    assert len(decoded) == 5
    quarter = decoded[0].shape[0] // 4
    assert [
        abs(int(frame[quarter, quarter]) - 10 * number) <= 4 for number, frame in enumerate(decoded)
    ] == [True] * 5


def _without(monkeypatch, *missing):
    codec = av.Codec

    def find(name, mode="r"):
        # PyAV itself says what it lacks.
        return codec(f"no-{name}" if name in missing else name, mode)

    monkeypatch.setattr(av, "Codec", find)


def test_without_h264_it_steps_down_and_says_so(tmp_path, monkeypatch):
    _without(monkeypatch, "libx264")
    said = write_mp4(tiled(clips()), tmp_path / "a.mp4", fps=10)
    assert "MPEG-4 part 2, which browsers do not play: this FFmpeg has no encoder for H.264" in said
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"


def test_without_any_encoder_no_file_is_written(tmp_path, monkeypatch):
    _without(monkeypatch, "libx264", "mpeg4")
    assert (
        write_mp4(tiled(clips()), tmp_path / "a.mp4", fps=10)
        == "no mp4: this FFmpeg has no encoder for it"
    )
    assert not (tmp_path / "a.mp4").exists()


def test_a_grid_has_a_row_for_each_clip(tmp_path):
    with Image.open(write_grid(clips(count=2, frames=5), tmp_path / "a.png")) as image:
        pixels = np.asarray(image)
    row = pixels[pixels.shape[0] // 4, :, 0]
    assert {0, 10, 20, 30, 40} <= set(row.tolist())
    assert 70 not in row


def test_predictions_stand_under_what_is_real(tmp_path):
    real = clips(count=1, frames=6)
    path = tmp_path / "a.png"
    write_predictions(real, 255 - real[:, 4:], path)
    with Image.open(path) as image:
        pixels = np.asarray(image)[:, :, 0]
    upper, lower = pixels[pixels.shape[0] // 4], pixels[3 * pixels.shape[0] // 4]
    assert {0, 10, 20, 30, 40, 50} <= set(upper.tolist())
    assert {0, 10, 20, 30, 215, 205} <= set(lower.tolist())
    assert 255 - 40 not in upper


def test_a_folder_that_is_not_there(tmp_path):
    gone = tmp_path / "gone"
    for write in (
        lambda: write_gif(tiled(clips()), gone / "a.gif", fps=10),
        lambda: write_mp4(tiled(clips()), gone / "a.mp4", fps=10),
        lambda: write_grid(clips(), gone / "a.png"),
    ):
        with pytest.raises(RunError, match="The clip's file must be writable"):
            write()
