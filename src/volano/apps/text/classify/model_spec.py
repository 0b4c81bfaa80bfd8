"""The description of a trained classifier of texts, from which it is built and fed again; kept in
``text.json``."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from volano.apps.model_spec import ModelSpec
from volano.apps.targets.find_target import target_of_run
from volano.apps.targets.target import Target
from volano.apps.text.classify.bag import BagClassifier, hash_texts
from volano.apps.text.classify.classifier import DecoderClassifier, token_rows
from volano.apps.text.classify.encoder import build_encoder
from volano.apps.text.model_spec import CLASSES_GOAL, DECODER_BOUNDS
from volano.apps.text.network import DecoderShape
from volano.apps.text.tokenizer import Tokenizer
from volano.device import Device
from volano.pretrained.text_encoders import EncoderTokenizer, cut_in_words

BAG, DECODER_HEAD, ENCODER = "bag of n-grams", "language model's head", "pretrained encoder"
_TEXTS_AT_ONCE, _ENCODED_AT_ONCE = 256, 32
# The decoder of a few seconds.
DEPTH, MOST_CONTEXT = 2, 128


@dataclass(frozen=True, kw_only=True)
class ClassesSpec(ModelSpec):
    """A classifier of texts without its weights, kept in ``text.json``.

    Attributes:
        classes: the class names, in the order of the logits; names of labels or numbers.
        kept: ``BAG``, ``DECODER_HEAD`` or ``ENCODER``.
        candidates: accuracy (F1 of labels, mean absolute error of numbers) of each on the texts
            held back to choose.
        num_buckets: the number of buckets of the bag.
        vocab_size, context, depth, tokenizer_digest: of the decoder; None for a bag.
        encoder: what ``encoder.py`` says of a pretrained encoder; None without one.
        target: what ``Target.to_json`` says of labels or numbers; None of classes.
    """

    file = "text.json"
    what = "a classifier"
    goal = CLASSES_GOAL
    bounds = {**DECODER_BOUNDS, "num_buckets": (0, 2**30)}  # noqa: RUF012

    classes: tuple[str, ...]
    kept: str
    candidates: dict[str, float]
    num_buckets: int
    vocab_size: int | None = None
    context: int | None = None
    depth: int | None = None
    tokenizer_digest: str | None = None
    encoder: dict[str, Any] | None = None
    target: dict[str, Any] | None = None

    @functools.cached_property
    def answers(self) -> Target:
        """The target: what the network gives."""
        return target_of_run(self.classes, self.target)

    @classmethod
    def parsed(cls, fields: dict[str, Any]) -> Self:
        # Null stands for a figure that is no number.
        fields["candidates"] = {
            name: math.nan if figure is None else float(figure)
            for name, figure in dict(fields["candidates"]).items()
        }
        found = super().parsed(fields)
        assert found.answers
        return found

    def shape(self) -> DecoderShape:
        """The shape of the decoder; the head is kept."""
        assert self.vocab_size is not None
        assert self.context is not None
        assert self.depth is not None
        return DecoderShape(vocab_size=self.vocab_size, context=self.context, depth=self.depth)

    def build(self) -> nn.Module:
        """The classifier with fresh weights, for trained ones to be loaded."""
        if self.kept == BAG:
            return BagClassifier(self.num_buckets, len(self.classes))
        if self.encoder is not None:
            return build_encoder(self.encoder, len(self.classes))
        return DecoderClassifier(self.shape(), len(self.classes))


def predict_texts(
    model: nn.Module,
    spec: ClassesSpec,
    texts: Sequence[str],
    device: Device,
    tokenizer: Tokenizer | EncoderTokenizer | None,
    *,
    said: list[str] | None = None,
) -> Tensor:
    """Returns the outputs fp32 [N, outputs] on the host; ``tokenizer`` is the run's, None for a
    bag; ``said`` gets a notice of texts that were cut."""
    model.eval()
    parts: list[Tensor] = []
    num_cut = 0
    at_once = _TEXTS_AT_ONCE if spec.encoder is None else _ENCODED_AT_ONCE
    with torch.inference_mode():
        for start in range(0, len(texts), at_once):
            batch = texts[start : start + at_once]
            if isinstance(tokenizer, EncoderTokenizer):
                encoded = tokenizer.encode(batch)
                num_cut += encoded.num_cut
                inputs = encoded.padded(np.arange(len(batch)))
            elif spec.kept == BAG:
                inputs = hash_texts(batch, spec.num_buckets).padded(np.arange(len(batch)))
            else:
                assert tokenizer is not None
                inputs = (torch.from_numpy(token_rows(batch, tokenizer, spec.shape().context)),)
            parts.append(model(*device.move(inputs)).float().cpu())
    if said is not None and isinstance(tokenizer, EncoderTokenizer):
        said += cut_in_words(num_cut, len(texts), tokenizer.most_tokens)
    return torch.cat(parts)


def choose_context(texts: Sequence[str], tokenizer: Tokenizer) -> int:
    """A multiple of 16 tokens that holds nineteen of twenty texts, at most 128."""
    lengths = [len(tokenizer.encode(text[: 16 * MOST_CONTEXT])) + 1 for text in texts[:2000]]
    return int(min(MOST_CONTEXT, 16 * -(-np.quantile(lengths, 0.95) // 16)))
