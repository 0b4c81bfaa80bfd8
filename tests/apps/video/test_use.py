"""A model of clips that was not trained."""

import json

import numpy as np
import pytest
from PIL import Image

from apps.video.specs import SPEC, woken
from volano.apps.video.model_spec import VideoSpec
from volano.apps.video.use import VideoModel, _check_out, _first_frames, _label_of, _make_folder
from volano.errors import DataError, UsageError
from volano.training import RunFolder, save_weights

PLAIN = VideoSpec.from_json({**SPEC.to_json(), "classes": [], "class_shares": []})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    RunFolder(path).write_json("video.json", SPEC.to_json())
    save_weights(woken(SPEC), path / "model.safetensors")
    return VideoModel.open(RunFolder(path), "cpu")


def test_clips_are_made_and_what_was_asked_for_stands_beside_them(model, tmp_path):
    found = model.generate(clips=2, frames=8, steps=1, class_name="b", out=str(tmp_path / "made"))
    assert found["num_frames"] == 8
    assert any("8 frames are rolled out: windows of 6" in notice for notice in found["notices"])
    assert json.loads((tmp_path / "made" / "generated.json").read_text())["class"] == "b"
    assert (tmp_path / "made" / "clips.gif").is_file()
    first, *rest = model.describe_generated(found)
    assert first == f"2 clips of 8 frames in {tmp_path / 'made'}"
    assert any(line.startswith("grid: ") for line in rest)
    with pytest.raises(UsageError, match="a new folder, or an empty one"):
        model.generate(clips=1, steps=1, out=str(tmp_path / "made"))


class TestLabel:
    def test_a_class_has_its_number(self):
        assert _label_of("b", None, SPEC) == 1
        assert _label_of(None, 2.0, SPEC) is None
        assert _label_of(None, None, PLAIN) is None

    def test_a_class_that_the_run_has_not_is_refused(self):
        with pytest.raises(UsageError, match="one of the run's classes; got 'z'.*knows a, b"):
            _label_of("z", None, SPEC)

    @pytest.mark.parametrize(
        ("given", "told"), [(("a", None), "class_name='a'"), ((None, 2.0), "guidance")]
    )
    def test_a_run_without_classes_takes_neither(self, given, told):
        with pytest.raises(UsageError, match=f"got {told} with a run without"):
            _label_of(*given, PLAIN)


class TestFirstFrames:
    @pytest.fixture
    def gif(self, tmp_path):
        frames = [
            Image.fromarray(np.full((16, 16), 40 * number, dtype=np.uint8)) for number in range(5)
        ]
        frames[0].save(tmp_path / "five.gif", save_all=True, append_images=frames[1:], duration=100)
        return tmp_path / "five.gif"

    def test_as_many_as_the_context(self, gif):
        notices = []
        frames = _first_frames(gif, SPEC, 6, notices)
        assert frames.shape == (3, 1, 16, 16)
        assert "the first 3 of 5 frames are given" in notices

    def test_a_picture_is_one(self, tmp_path):
        Image.new("L", (16, 16), 99).save(tmp_path / "one.png")
        notices = []
        assert len(_first_frames(tmp_path / "one.png", SPEC, 6, notices)) == 1
        assert "1 first frames; the model was tested with 3" in notices

    @pytest.mark.parametrize("name", ["photo.JPG", "a%d.jpg", "a.tif"])
    def test_a_photograph_is_read_upright(self, tmp_path, name):
        noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
        noise[:, :150] = 0  # the left half, which is the upper one of the turned camera
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(noise).save(tmp_path / name, quality=95, exif=exif)
        Image.new("L", (16, 16), 255).save(tmp_path / "a1.jpg")
        assert (tmp_path / name).stat().st_size > 50_000
        frames = _first_frames(tmp_path / name, SPEC, 6, [])
        assert frames.shape == (1, 1, 16, 16)
        assert frames[..., :7, :].max() < 20 < 60 < frames[..., 9:, :].min()

    def test_a_clip_of_one_frame_has_none_before_it(self, gif):
        with pytest.raises(UsageError, match="have at least two frames; got 1 frames"):
            _first_frames(gif, SPEC, 1, [])

    def test_what_is_no_clip_is_refused(self, tmp_path):
        with pytest.raises(UsageError, match="must name a file; got .*none.mp4"):
            _first_frames(tmp_path / "none.mp4", SPEC, 6, [])
        (tmp_path / "x.txt").write_text("x")
        with pytest.raises(UsageError, match="must name a clip or a picture"):
            _first_frames(tmp_path / "x.txt", SPEC, 6, [])
        (tmp_path / "x.mp4").write_text("x")
        with pytest.raises(DataError, match="The first frames must be readable"):
            _first_frames(tmp_path / "x.mp4", SPEC, 6, [])


class TestFolders:
    def test_each_call_has_the_next(self, tmp_path):
        names = [_make_folder(tmp_path, None).name for _ in range(2)]
        assert names == ["generated-1", "generated-2"]
        assert _make_folder(tmp_path, tmp_path / "a" / "b").is_dir()

    def test_one_that_cannot_be_made_is_told(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError, match="which is a file"):
            _check_out(tmp_path / "file")
        with pytest.raises(UsageError, match="can be made"):
            _make_folder(tmp_path, tmp_path / "file" / "x")
        _check_out(None)
        _check_out(tmp_path / "new")
