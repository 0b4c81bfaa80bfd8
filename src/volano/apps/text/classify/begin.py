"""The pretrained encoder with which a classifier of texts begins: one of transformers, or that of
another run."""

from __future__ import annotations

from typing import Any

from volano.apps.text.classify.encoder import tokenizer_of_run
from volano.apps.text.classify.model_spec import ClassesSpec
from volano.errors import UsageError
from volano.pretrained.network_references import NetworkReference
from volano.pretrained.read_weights import digest_of_weights
from volano.pretrained.text_encoders import TextEncoder, load_text_encoder
from volano.running.checks import check_ended
from volano.running.train import kind_of
from volano.training import WEIGHTS, RunFolder, build_and_load


def encoder_of(reference: str | None) -> TextEncoder | None:
    """Loads the encoder that a reference names; None of none.

    Raises:
        UsageError: it is not there, or is no encoder of texts.
    """
    if reference is None:
        return None
    found = NetworkReference.parse(reference)
    if found.kind == "run":
        return _of_run(RunFolder.open(found.name), reference)
    if found.kind != "transformers":
        raise UsageError(
            "An encoder of texts must be one of transformers (hf:NAME or its folder), or a run's",
            got=reference,
        )
    return load_text_encoder(found.name, reference)


def _of_run(folder: RunFolder, reference: str) -> TextEncoder:
    """Returns the encoder of another run, with its trained weights and its tokenizer."""
    content = {}
    if (folder.path / "text.json").is_file():
        content = folder.read_json("text.json")
    about = content.get("encoder")
    if about is None:
        kept = f", whose {content['kept']} was kept" if "kept" in content else ""
        raise UsageError(
            "A run to begin with must be a classifier of texts on a pretrained encoder",
            got=f"{reference}, of {kind_of(folder.path)}{kept}",
        )
    check_ended(folder)
    with folder.as_written():
        spec = ClassesSpec.from_json(content)
        module: Any = build_and_load(spec.build, folder.path / WEIGHTS)
        tokenizer = tokenizer_of_run(folder.path, about)
        return TextEncoder(
            reference=reference, tokenizer=tokenizer,
            trunk=module.trunk.requires_grad_(True).eval(),
            digest=f"{digest_of_weights(module.trunk)}{tokenizer.digest}",
            **{name: about[name] for name in ("config", "pooling", "is_unit", "num_features")},
        )  # fmt: skip
