"""A decoder that has read the texts, as a run's folder keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from safetensors import SafetensorError
from torch import Tensor

from volano.apps.text.classify.model_spec import ClassesSpec
from volano.apps.text.network import DecoderShape
from volano.apps.text.tokenizer import Tokenizer, load_tokenizer
from volano.errors import CheckpointError
from volano.training import RunFolder, load_tensors

PRETRAINED = "pretrained.safetensors"


@dataclass(frozen=True, kw_only=True)
class ReadHead:
    """A decoder that has read the texts, for its head to be trained."""

    tokenizer: Tokenizer
    shape: DecoderShape
    weights: dict[str, Tensor]

    @classmethod
    def load(cls, folder: RunFolder, spec: ClassesSpec) -> ReadHead | None:
        """Loads that of a run; None if its bag was kept.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        if spec.tokenizer_digest is None:
            return None
        tokenizer = load_tokenizer(folder.path / "tokenizer.json", spec.tokenizer_digest)
        try:
            weights = load_tensors(folder.path / PRETRAINED)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{PRETRAINED} of a run must be readable", got=f"{folder.path}: {error}"
            ) from error
        return cls(tokenizer=tokenizer, shape=spec.shape(), weights=weights)
