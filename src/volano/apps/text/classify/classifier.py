"""The language model's head: a decoder that has read the texts, its features averaged over a text,
and a matrix to the classes.

Shapes: N texts, T tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from volano.apps.text.classify.bag import classification_loss
from volano.apps.text.network import Decoder, DecoderShape
from volano.apps.text.tokenizer import SEPARATOR_ID, Tokenizer
from volano.data import Arrays
from volano.task import Loss


class DecoderClassifier(nn.Module):
    """A classifier: tokens int16 [N, T], filled up behind with separators, in; logits [N, classes]
    out. Features are averaged over the tokens of each text, the separator before it included.

    Args:
        shape: the shape of the decoder.
        num_classes: the number of classes of the logits.
        weights: a decoder's ``state_dict``; None when trained weights are loaded afterwards.
    """

    def __init__(
        self, shape: DecoderShape, num_classes: int, weights: dict[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.decoder = Decoder(shape)
        if weights is not None:
            self.decoder.load_state_dict(weights)
        self.decoder.head = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue] - its logits are not asked for
        self.classes = nn.Linear(shape.width, num_classes)
        nn.init.zeros_(self.classes.weight)
        nn.init.zeros_(self.classes.bias)

    def forward(self, tokens_NT: Tensor) -> Tensor:
        tokens_NT = tokens_NT.long()
        is_text = tokens_NT != SEPARATOR_ID
        is_text[:, 0] = True
        features = self.decoder.features(tokens_NT).float() * is_text[:, :, None]
        return self.classes(features.sum(1) / is_text.sum(1, keepdim=True))


class ClassifierObjective:
    """The cross-entropy of ``(tokens, labels)``, with the accuracy as a metric; see
    ``Task.objective``."""

    def __call__(self, model: nn.Module, batch: Any) -> Loss:
        """Computes the loss of tokens int16 [N, T] and labels int64 [N]."""
        tokens, labels = batch
        return classification_loss(model(tokens), labels)


def classifier_parameter_groups(
    model: nn.Module, *, matrix_lr: float, rest_lr: float
) -> list[dict[str, Any]]:
    """Returns the groups for ``MuonAdamW``: Muon for the matrices of the blocks, AdamW for the
    rest."""
    assert isinstance(model, DecoderClassifier)
    return [
        {
            "params": list(model.decoder.blocks.parameters()),
            "algorithm": "muon",
            "lr": matrix_lr,
            "weight_decay": 0.0,
        },
        {
            "params": [model.decoder.embedding.weight, *model.classes.parameters()],
            "algorithm": "adamw",
            "lr": rest_lr,
            "weight_decay": 0.0,
        },
    ]


def token_rows(texts: Sequence[str], tokenizer: Tokenizer, context: int) -> np.ndarray:
    """The first ``context - 1`` tokens of each text behind a separator, filled up with separators,
    int16 [N, T]; T is the longest such row."""
    rows = [tokenizer.encode(text[: 64 * context])[: context - 1] for text in texts]
    table = np.full((len(rows), 1 + max(map(len, rows))), SEPARATOR_ID, dtype=np.int16)
    for number, row in enumerate(rows):
        table[number, 1 : 1 + len(row)] = row
    return table


def token_arrays(rows: np.ndarray, labels: np.ndarray) -> Arrays:
    """Returns tokens and classes as a dataset."""
    return Arrays((torch.from_numpy(rows), torch.from_numpy(labels)))
