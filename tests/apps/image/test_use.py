"""A classifier of images, with a network that was not trained."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from volano.apps.image.model_spec import ClassifierSpec, make_classifier
from volano.apps.image.use import ImageModel, _as_picture, _in_terms_of
from volano.data.sources import LabelledImages
from volano.errors import CheckpointError, DataError, UsageError
from volano.training import RunFolder, save_weights

SPEC = ClassifierSpec(
    classes=("a", "b", "c"), channels=1, image_size=8, mean=(100.0,), std=(50.0,), size="thin",
    model_reference=None, flip=False, translate=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that never was."""
    path = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    RunFolder(path).write_json("image.json", SPEC.to_json())
    save_weights(make_classifier(SPEC), path / "model.safetensors")
    return path


@pytest.fixture(scope="module")
def model(run):
    return ImageModel.open(RunFolder(run), "cpu")


def picture(seed=0, size=8):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    return Image.fromarray(pixels)


class TestPredict:
    def test_one_or_several(self, model, tmp_path):
        one = model.predict(picture())
        assert len(one) == 1
        assert one[0].path == "image 0"
        assert dict(one.more) == {"top_k": 3}
        several = model.predict([picture(), picture(1)], top_k=1)
        assert [row.path for row in several] == ["image 0", "image 1"]
        assert several[0].label == one[0].label
        picture().save(tmp_path / "x.png")
        from_file = model.predict(tmp_path / "x.png")
        assert from_file[0].top == one[0].top
        assert from_file[0].path == str(tmp_path / "x.png")

    def test_arrays_and_tensors_in_any_order_of_axes(self, model):
        pixels = np.asarray(picture())
        expected = model.predict(picture())[0].top
        for same in (pixels, pixels[None], pixels[..., None], torch.from_numpy(pixels.copy())):
            assert model.predict(same)[0].top == expected

    def test_what_cannot_be_read_among_others_is_told(self, model, tmp_path):
        (tmp_path / "bad.png").write_text("no")
        picture().save(tmp_path / "good.png")
        found = model.predict([tmp_path / "good.png", tmp_path / "bad.png"])
        assert len(found) == 1
        assert [fault.path for fault in found.unreadable] == [str(tmp_path / "bad.png")]
        with pytest.raises(DataError, match="one of the images must be readable; got none"):
            model.predict(tmp_path / "bad.png")

    def test_no_image(self, model):
        with pytest.raises(DataError):
            model.predict([])


@pytest.mark.parametrize(
    "picture",
    [np.zeros((8, 8), np.float32), np.zeros((8,), np.uint8), np.zeros((2, 8, 8, 3), np.uint8),
     torch.zeros(8, 8)],
)  # fmt: skip
def test_what_is_no_picture_is_refused(picture):
    with pytest.raises(UsageError, match="one of Pillow, or bytes uint8 of 2 or 3 dimensions"):
        _as_picture(picture)


def test_channels_may_come_first_or_last():
    first = torch.zeros(3, 5, 7, dtype=torch.uint8)
    assert _as_picture(first).size == _as_picture(first.permute(1, 2, 0)).size == (7, 5)


class TestOtherImages:
    def images(self, classes, *, channels=1, size=8):
        return LabelledImages(
            images=torch.zeros(2, channels, size, size, dtype=torch.uint8),
            labels=torch.tensor([0, 1]), classes=classes, names=("x", "y"), faults=(),
        )  # fmt: skip

    def test_classes_get_the_runs_numbers(self):
        found = _in_terms_of(SPEC, self.images(("b", "c")))
        assert found.labels.tolist() == [1, 2]
        assert found.classes == SPEC.classes

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"classes": ("b", "d")}, "of the run's classes; got also d"),
            ({"classes": ("a", "b"), "channels": 3}, "like those of the run; got 3 channels"),
            ({"classes": ("a", "b"), "size": 16}, "like those of the run; got 1 channels of 16"),
        ],
    )
    def test_others_are_refused(self, options, message):
        with pytest.raises(DataError, match=message):
            _in_terms_of(SPEC, self.images(**options))


class TestExport:
    def test_without_a_folder_or_samples_it_says_so(self, model, tmp_path):
        with pytest.raises(UsageError, match="`out` must name a file in a folder that exists"):
            model.export("pt2", tmp_path / "nowhere" / "x.pt2")
        with pytest.raises(UsageError, match="`out` must name a file"):
            model.export("pt2", tmp_path)
        with pytest.raises(CheckpointError, match="must hold samples.safetensors"):
            model.export("safetensors", tmp_path / "x")

    def test_weights_are_written_and_compared(self, run, model, tmp_path):
        samples = torch.stack([torch.from_numpy(np.asarray(picture(n)).copy()) for n in range(2)])
        save_file({"images": samples[:, None]}, run / "samples.safetensors")
        result = model.export("safetensors", tmp_path / "x.safetensors")
        assert result["largest_difference"] == 0.0
        assert (result["classes"], result["input"]) == (["a", "b", "c"], [1, 8, 8])
        (run / "samples.safetensors").unlink()
