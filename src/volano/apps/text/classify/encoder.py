"""The classifier on a pretrained encoder: begun, trained, described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from volano.apps.options import tried_around
from volano.apps.text.classify.bag import classification_loss
from volano.device import Device
from volano.errors import CheckpointError
from volano.pretrained.fine_tuned import FineTuned, StandardizedLinear
from volano.pretrained.frozen_features import frozen_features
from volano.pretrained.linear_probe import LinearProbe
from volano.pretrained.network_references import ALL, HEAD
from volano.pretrained.text_encoders import (
    TOKENIZER,
    EncoderTokenizer,
    TextEncoder,
    TextTrunk,
    TokenTexts,
)
from volano.pretrained.transformers_library import ENCODER_AUTO, build_network
from volano.pretrained.tuning import TuningRates
from volano.record.files import read_bytes
from volano.task import Loss

# The head is solved before the first step: passes beyond these change nothing.
MOST_FINE_TUNING_EPOCHS = {HEAD: 3.0, ALL: 10.0}
_BATCH = 16


class EncoderObjective:
    """The cross-entropy of ``(ids, is_token, labels)``, with the accuracy as a metric; see
    ``Task.objective``."""

    def __call__(self, model: nn.Module, batch: Any) -> Loss:
        """Computes the loss of a batch as ``TokenTextsDataset.collate`` makes it."""
        ids, is_token, labels = batch
        return classification_loss(model(ids, is_token), labels)


def encoder_features(
    encoder: TextEncoder, texts: TokenTexts, rows: np.ndarray, device: Device
) -> tuple[Tensor, float]:
    """Returns the frozen features of texts, fp32 [N, F] on the host, and the seconds of one; texts
    of like lengths are passed together."""
    order = np.argsort(np.diff(texts.offsets)[rows], kind="stable")
    batches = (
        texts.padded(rows[order[start : start + _BATCH]]) for start in range(0, len(order), _BATCH)
    )
    features, seconds = frozen_features(encoder.trunk, batches, device)
    return torch.empty_like(features).index_copy_(0, torch.from_numpy(order), features), seconds


@dataclass(frozen=True, kw_only=True)
class EncoderRecipe:
    """The numbers of one fine-tuning.

    Attributes:
        batch_size: texts per step.
        trunk_lr, head_lr, weight_decay: see ``TuningRates``.
    """

    batch_size: int
    trunk_lr: float = tried_around(5.0)
    head_lr: float = tried_around(5.0)
    weight_decay: float = tried_around(10.0)

    @property
    def rates(self) -> TuningRates:
        """The rates of the trunk and the head, and their decay."""
        return TuningRates(trunk=self.trunk_lr, head=self.head_lr, weight_decay=self.weight_decay)


def choose_recipe(tune: str, probe: LinearProbe, batch_size: int) -> EncoderRecipe:
    """Returns every number of a fine-tuning: of all layers, decay 0.01, rates 2e-5 in the last ones
    (Hugging Face's), 1e-3 in the head; of the head, those with which it was solved, its rate as the
    share of the texts that a step sees: the gradients of a few push it away from where it was
    solved."""
    if tune == ALL:
        return EncoderRecipe(batch_size=batch_size, trunk_lr=2e-5, head_lr=1e-3, weight_decay=0.01)
    share = min(1.0, batch_size / probe.num_examples)
    return EncoderRecipe(
        batch_size=batch_size, trunk_lr=0.0, head_lr=share, weight_decay=probe.weight_decay
    )


def encoder_batch(num_texts: int) -> int:
    """Returns the texts per step."""
    return min(32, max(1, num_texts // 8))


def described_encoder(encoder: TextEncoder, tune: str) -> dict[str, Any]:
    """Returns what ``text.json`` keeps of an encoder: enough to build and feed it again."""
    return {
        "reference": encoder.reference,
        "tune": tune,
        "config": encoder.config,
        "pooling": encoder.pooling,
        "is_unit": encoder.is_unit,
        "num_features": encoder.num_features,
        "most_tokens": encoder.tokenizer.most_tokens,
        "padding_id": encoder.tokenizer.padding_id,
        "digest": encoder.digest,
    }


def build_encoder(about: Mapping[str, Any], num_classes: int) -> nn.Module:
    """Returns the classifier of a run, for its weights to be loaded."""
    network = build_network(about["config"], ENCODER_AUTO)
    trunk = TextTrunk(network, about["pooling"], about["is_unit"])
    return FineTuned(trunk, StandardizedLinear(about["num_features"], num_classes), about["tune"])


def tokenizer_of_run(folder: Path, about: Mapping[str, Any]) -> EncoderTokenizer:
    """Returns the tokenizer of a run's encoder.

    Raises:
        CheckpointError: it is missing, or another one.
    """
    try:
        found = EncoderTokenizer(
            read_bytes(folder / TOKENIZER), about["most_tokens"], about["padding_id"]
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{TOKENIZER} of a run must be readable", got=f"{folder}: {error}"
        ) from error
    if not about["digest"].endswith(found.digest):
        raise CheckpointError(
            f"{TOKENIZER} must be the one with which the run was made", got=f"another in {folder}"
        )
    return found
