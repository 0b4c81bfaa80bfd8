"""Dimensions that a stranger may have written are checked before memory is taken."""

import json
import re

import pytest
import torch

from volano.apps.dimensions import check_dimensions, check_figures
from volano.apps.image.model_spec import ClassifierSpec, make_classifier
from volano.apps.image.use import ImageModel
from volano.apps.text.classify.model_spec import ClassesSpec
from volano.apps.text.model_spec import TextSpec
from volano.apps.video.model_spec import VideoSpec
from volano.errors import CheckpointError
from volano.training import RunFolder, save_weights

IMAGE = ClassifierSpec(
    classes=("a", "b"), channels=1, image_size=8, mean=(0.0,), std=(1.0,), size="thin",
    model_reference=None, flip=False, translate=0,
).to_json()  # fmt: skip
TEXT = TextSpec(
    vocab_size=300, context=16, depth=2, tokenizer_digest="", num_train_bytes=1, num_train_tokens=1,
    num_held_bytes=1, num_held_tokens=1, baselines={}, origin="",
).to_json()  # fmt: skip
CLASSES = ClassesSpec(classes=("a", "b"), kept="bag of n-grams", candidates={}, num_buckets=64)
VIDEO = VideoSpec(
    network="unet", width=16, depth=0, patch=0, num_frames=6, context=3, channels=1, size=16,
    fps=10.0, classes=(), class_shares=(), mean=(20.0,), std=(40.0,),
).to_json()  # fmt: skip


@pytest.mark.parametrize(("spec", "value", "changes"), [
    (ClassifierSpec, IMAGE, {"image_size": 10**9}),
    (ClassifierSpec, IMAGE, {"image_size": "8"}),
    (ClassifierSpec, IMAGE, {"channels": True}),
    (ClassifierSpec, IMAGE, {"mean": [0.0] * 3}),
    (ClassifierSpec, IMAGE, {"std": "1"}),
    (ClassifierSpec, IMAGE, {"fit": "stretch"}),
    (ClassifierSpec, IMAGE, {"classes": 7}),
    (TextSpec, TEXT, {"context": 10**12}),
    (TextSpec, TEXT, {"depth": -1}),
    (ClassesSpec, CLASSES.to_json(), {"num_buckets": 2**40}),
    (VideoSpec, VIDEO, {"width": 10**6}),
    (VideoSpec, VIDEO, {"fps": 1e300}),
    (VideoSpec, VIDEO, {"fps": None}),
    (VideoSpec, VIDEO, {"num_frames": 2.5}),
])  # fmt: skip
def test_no_model_is_that_large(spec, value, changes):
    assert spec.from_json(json.loads(json.dumps(value))) is not None
    with pytest.raises(CheckpointError, match=r"(image|text|video)\.json must"):
        spec.from_json({**value, **changes})


def test_the_rule_is_said():
    with pytest.raises(CheckpointError, match="must state a as a whole number from 1 to 1,000"):
        check_dimensions({"a": 1001}, {"a": (1, 1000)}, "x.json")
    check_dimensions({"a": None}, {"a": (1, 1000), "b": (1, 2)}, "x.json")
    with pytest.raises(CheckpointError, match=re.escape("x.json must state a as 2 numbers")):
        check_figures({"a": [1, None]}, {"a": 2}, "x.json")


def test_weights_of_another_shape_are_seen_before_the_model_is_built(tmp_path, monkeypatch):
    spec = ClassifierSpec.from_json(IMAGE)
    save_weights(make_classifier(spec), tmp_path / "model.safetensors")
    folder = RunFolder(tmp_path)
    folder.write_json("image.json", IMAGE)
    assert ImageModel.open(folder, "cpu").classes == ("a", "b")
    folder.write_json("image.json", {**IMAGE, "classes": [str(n) for n in range(10_000)]})
    made = []

    def make(*arguments, **options):
        made.append(torch.empty(1).device.type)
        return make_classifier(*arguments, **options)

    monkeypatch.setattr("volano.apps.image.fine_tuning.network.make_classifier", make)
    with pytest.raises(CheckpointError, match="The weights must belong to the model"):
        ImageModel.open(folder, "cpu")
    assert made == ["meta"]
