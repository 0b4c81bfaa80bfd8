import dataclasses

import pytest
import torch

from volano.apps.video.classify.model_spec import ClipClassesSpec, predict_frames
from volano.device import Device
from volano.errors import CheckpointError

SPEC = ClipClassesSpec(
    classes=("a", "b"), num_frames=4, channels=1, size=16, fps=10.0, mean=(90.0,), std=(40.0,),
    width=8,
)  # fmt: skip


def test_json_and_back():
    assert ClipClassesSpec.from_json(SPEC.to_json()) == SPEC


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"goal": None}, "describe a classifier of clips; got None"),
        ({"num_frames": 0}, "state num_frames as a whole number from 1"),
        ({"mean": [1.0, 2.0]}, "state mean as 1 numbers"),
        ({"fps": 0}, "describe a classifier of clips"),
        ({"more": 1}, "describe a classifier of clips"),
    ],
)
def test_what_is_damaged_is_told(change, words):
    with pytest.raises(CheckpointError, match=words):
        ClipClassesSpec.from_json({**SPEC.to_json(), **change})


def test_predictions_do_not_depend_on_their_parts(monkeypatch):
    torch.manual_seed(0)
    model = dataclasses.replace(SPEC, classes=("a", "b", "c")).build()
    torch.nn.init.normal_(model.head.weight)
    frames = torch.randint(0, 255, (5, 4, 1, 16, 16), dtype=torch.uint8)
    whole = predict_frames(model, frames, Device("cpu"))
    monkeypatch.setattr("volano.apps.video.classify.model_spec._AT_ONCE", 2)
    torch.testing.assert_close(predict_frames(model, frames, Device("cpu")), whole)
