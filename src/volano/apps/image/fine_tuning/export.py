"""A fine-tuned classifier of transformers as a folder that ``from_pretrained`` loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from volano.apps.export import largest_difference
from volano.apps.image.model_spec import ClassifierSpec
from volano.apps.model_card import write_card
from volano.apps.targets.target import Target
from volano.data.sources.fitting import CUT, PAD
from volano.errors import UsageError
from volano.pretrained.fine_tuned import FineTuned
from volano.pretrained.transformers_library import IMAGES_AUTO, load_network, save_network
from volano.record.files import written_folder
from volano.training import RunFolder

# Numbers of Pillow.
_RESAMPLES = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


def is_classifier_of_transformers(spec: ClassifierSpec) -> bool:
    """Returns whether transformers has a class for a run's network that has a head."""
    skeleton = (spec.pretrained or {}).get("skeleton") or {}
    return skeleton.get("auto") == IMAGES_AUTO and skeleton.get("head") is not None


def export_hf(
    model: nn.Module, spec: ClassifierSpec, folder: RunFolder, images: Tensor, target: Path
) -> dict[str, Any]:
    """Writes configuration, weights, processor and model card, loads them back and compares.

    Args:
        model: the run's classifier, on the host; it is changed.
        spec: its description.
        folder: of the run.
        images: bytes to compare predictions on.
        target: the folder to write.

    Raises:
        UsageError: pictures were padded, which no processor would do.
        RunError: what was loaded back predicts something else.
    """
    assert isinstance(model, FineTuned)
    if spec.fit == PAD:
        raise UsageError(
            "Pictures must be cut or squeezed, which a processor of transformers can do",
            got="a run with fit=pad",
            remedy="Export to pt2, onnx or safetensors, or train with another `fit`",
        )
    about = spec.pretrained or {}
    with torch.no_grad():
        expected = spec.answers.finished(model)(images)
    network: Any = model.trunk.network
    network.set_submodule(about["skeleton"]["head"], spec.answers.finish_head(model.head.folded()))
    network.config.id2label = dict(enumerate(spec.classes))
    network.config.label2id = {name: number for number, name in enumerate(spec.classes)}
    network.config.num_labels = len(spec.classes)
    network.config.update(spec.answers.transformers_config())
    own = about["preprocessing"]
    square = {"height": own["size"], "width": own["size"]}
    fitted: dict[str, Any] = {"size": square}
    if spec.fit == CUT:  # which not every processor knows
        fitted = {
            "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": own["size"]},
            "do_center_crop": True, "crop_size": square,
        }  # fmt: skip
    processor = {
        **fitted, "do_resize": True,
        "resample": _RESAMPLES[own["interpolation"]], "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [value / 255 for value in own["mean"]],
        "image_std": [value / 255 for value in own["std"]],
    }  # fmt: skip
    with written_folder(target) as partial:
        save_network(network, partial)
        (partial / "preprocessor_config.json").write_text(json.dumps(processor, indent=2))
        write_card(folder, partial, target.name)
        compared = _compared(partial, model, images, expected, spec.answers)
    return {**compared, "path": str(target), "format": "hf"}


def _compared(
    target: Path, model: FineTuned, images: Tensor, expected: Tensor, answers: Target
) -> dict[str, Any]:
    trunk: Any = model.trunk
    trunk.network = load_network(str(target), IMAGES_AUTO)
    with torch.no_grad():
        difference = largest_difference(trunk(images), expected, answers)
    size = sum(file.stat().st_size for file in target.iterdir())
    return {"bytes": size, "num_compared": len(images), "largest_difference": difference}
