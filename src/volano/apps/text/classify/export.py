"""A classifier on a pretrained encoder for other programs: one program of ids, or a folder that
transformers and sentence-transformers load."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from volano.apps.export import HF, export_classifier, largest_difference
from volano.apps.model_card import write_card
from volano.apps.text.classify.encoder import build_encoder
from volano.apps.text.classify.model_spec import ClassesSpec
from volano.errors import UsageError
from volano.pretrained.fine_tuned import FineTuned
from volano.pretrained.text_encoders import EncoderTokenizer, TextTrunk
from volano.pretrained.transformers_library import ENCODER_AUTO, load_network, save_network
from volano.record.files import written_folder
from volano.training import RunFolder, save_tensors

# Texts of several lengths, on which what was written is compared.
_TEXTS = (
    "A text.",
    "Another text, which is a little longer than the first one, and has a number in it: 42.",
    "What was written is loaded back and must give the same.",
)
_HEAD = "3_Dense"
_KINDS = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize", _HEAD: "Dense"}
_POOLINGS = {"cls_token": "cls", "mean_tokens": "mean"}


def export_encoder(
    module: nn.Module,
    spec: ClassesSpec,
    tokenizer: object,
    folder: RunFolder,
    to: str,
    target: Path,
) -> dict[str, Any]:
    """Writes a run's classifier to ``target``, loads it back and compares.

    A program takes ids int32 [N, T] and which of them are tokens bool [N, T], and gives logits [N,
    classes], or numbers in their own units. For hf it is a folder: the encoder as
    ``AutoModel.from_pretrained`` loads it, and its pooling and head as modules of
    sentence-transformers.

    Args:
        module: the run's classifier; it is left as it is.
        spec: its description.
        tokenizer: the run's.
        folder: of the run.
        to: one of ``FORMATS``, or hf.
        target: the file, or the folder.

    Raises:
        UsageError: another format, or a classifier without a pretrained encoder.
        RunError: what was loaded back predicts something else.
    """
    if spec.encoder is None:
        raise UsageError(
            "Only a classifier on a pretrained encoder can be exported", got=f"a {spec.kept}",
            remedy="Train one with `from_`",
        )  # fmt: skip
    if to not in ("safetensors", "pt2", HF):
        raise UsageError(
            "A classifier of texts must be exported to safetensors, pt2 or hf", got=repr(to)
        )
    model = copy.deepcopy(module).cpu().eval()
    assert isinstance(model, FineTuned)
    assert isinstance(tokenizer, EncoderTokenizer)
    inputs = tokenizer.encode(_TEXTS).padded(np.arange(len(_TEXTS)))
    if to == HF:
        with torch.no_grad():
            expected = spec.answers.finished(model)(*inputs)
        with written_folder(target) as partial:
            _write(model, spec, tokenizer, partial)
            write_card(folder, partial, target.name)
            compared = _compared(partial, spec, inputs, expected)
        return {**compared, "path": str(target), "format": HF}
    fresh = build_encoder(spec.encoder, len(spec.classes))
    return export_classifier(
        model, fresh, inputs, to, target, target=spec.answers, names=("ids", "is_token"),
        most_length=spec.encoder["most_tokens"],
    )  # fmt: skip


def _write(model: FineTuned, spec: ClassesSpec, tokenizer: EncoderTokenizer, folder: Path) -> None:
    about, network = spec.encoder or {}, model.trunk.encoder
    assert isinstance(network, nn.Module)
    config: Any = network.config
    config.id2label = dict(enumerate(spec.classes))
    config.label2id = {name: number for number, name in enumerate(spec.classes)}
    config.update(spec.answers.transformers_config())
    save_network(network, folder)
    tokenizer.save(folder, pad_token=tokenizer.token_of(tokenizer.padding_id))
    head = spec.answers.finish_head(model.head.folded())
    kinds = {path: kind for path, kind in _KINDS.items() if kind != "Normalize" or about["is_unit"]}
    modules = [
        {"idx": number, "name": str(number), "path": path,
         "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds.items())
    ]  # fmt: skip
    pooled = {f"pooling_mode_{n}": about["pooling"] == p for n, p in _POOLINGS.items()}
    texts = {
        "sentence_bert_config.json": {"max_seq_length": tokenizer.most_tokens},
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": about["num_features"], **pooled},
        f"{_HEAD}/config.json": {
            "in_features": head.in_features, "out_features": head.out_features, "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    }  # fmt: skip
    for path in kinds:
        (folder / path).mkdir(exist_ok=True)
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
    weights = {"linear.weight": head.weight.detach(), "linear.bias": head.bias.detach()}
    save_tensors(weights, folder / _HEAD / "model.safetensors")


@torch.no_grad()
def _compared(
    folder: Path, spec: ClassesSpec, inputs: tuple[Tensor, Tensor], expected: Tensor
) -> dict[str, Any]:
    """Returns by how much what the written network gives differs from what is expected, and how
    large it is."""
    about = spec.encoder or {}
    network = load_network(str(folder), ENCODER_AUTO)
    head = nn.Linear(about["num_features"], len(spec.classes))
    weights: dict[str, Tensor] = load_file(folder / _HEAD / "model.safetensors")
    head.load_state_dict({name.removeprefix("linear."): t for name, t in weights.items()})
    found = head(TextTrunk(network, about["pooling"], about["is_unit"])(*inputs))
    return {
        "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "num_compared": len(expected),
        "largest_difference": largest_difference(found, expected, spec.answers),
    }
