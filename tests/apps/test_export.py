"""An exported classifier is loaded back and compared before it is called written."""

import os

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from volano.apps import export
from volano.apps.export import FORMATS, export_classifier
from volano.errors import RunError, UsageError


class Scaled(nn.Module):
    """Bytes to logits."""

    def __init__(self, seed=0):
        super().__init__()
        self.head = nn.Linear(16, 3)
        nn.init.normal_(self.head.weight, generator=torch.Generator().manual_seed(seed))

    def forward(self, images):
        return self.head(images.float().flatten(1) / 255)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, 1, 4, 4), generator=generator, dtype=torch.uint8)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of torch, in its exporter
@pytest.mark.parametrize("to", FORMATS)
def test_a_file_whose_name_is_no_utf_8(images, tmp_path, to):
    if to == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxscript")
    out = tmp_path / os.fsdecode(b"a\xe9.x")
    assert export_classifier(Scaled(), Scaled(1), images, to, out)["bytes"] > 0


def test_weights(images, tmp_path):
    model, out = Scaled(), tmp_path / "model.safetensors"
    result = export_classifier(model, Scaled(1), images, "safetensors", out)
    assert result == {
        "path": str(out), "format": "safetensors", "bytes": out.stat().st_size, "num_compared": 5,
        "largest_difference": 0.0,
    }  # fmt: skip
    assert torch.equal(load_file(out)["head.weight"], model.head.weight)


def test_a_program_takes_batches_of_any_size(images, tmp_path):
    model, out = Scaled().train(), tmp_path / "model.pt2"
    result = export_classifier(model, Scaled(1), images, "pt2", out)
    assert result["largest_difference"] < 1e-5
    program = torch.export.load(out).module()
    assert program(images[:1]).shape == (1, 3)
    assert not model.training


def test_what_predicts_something_else_is_refused(images, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_safetensors", lambda model, *_: model(images) + 0.1)
    with pytest.raises(RunError, match="predict what the run's model does; got logits that diff"):
        export_classifier(Scaled(), Scaled(), images, "safetensors", tmp_path / "x")
    monkeypatch.setattr(export, "_safetensors", lambda model, *_: model(images) * float("nan"))
    with pytest.raises(RunError, match="nan"):
        export_classifier(Scaled(), Scaled(), images, "safetensors", tmp_path / "x")


def test_another_format_is_refused(images, tmp_path):
    with pytest.raises(UsageError, match=f"exported to one of {', '.join(FORMATS)}; got 'gguf'"):
        export_classifier(Scaled(), Scaled(), images, "gguf", tmp_path / "x")
