"""The description of a trained language model, from which it is built and fed again; kept in
``text.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from volano.apps.model_spec import ModelSpec
from volano.apps.text.network import DecoderShape

LANGUAGE_GOAL, CLASSES_GOAL = "language", "classes"
DECODER_BOUNDS = {"vocab_size": (2, 2**24), "context": (1, 2**16), "depth": (1, 256)}


@dataclass(frozen=True, kw_only=True)
class TextSpec(ModelSpec):
    """A language model without its weights, and the text that it was trained on in numbers.

    Attributes:
        vocab_size: tokens.
        context: see ``DecoderShape``.
        depth: see ``DecoderShape``.
        tokenizer_digest: see ``Tokenizer.digest``.
        num_train_bytes: UTF-8 bytes of the training text.
        num_train_tokens: the number of tokens of the training text, with separators.
        num_held_bytes: the bytes of the held-out text.
        num_held_tokens: the number of tokens of the held-out text, with separators.
        baselines: bits per byte of xz and bz2 on the held-out text after the training text.
        origin: the source of the text, in words.
    """

    file = "text.json"
    what = "a language model"
    goal = LANGUAGE_GOAL
    bounds = DECODER_BOUNDS

    vocab_size: int
    context: int
    depth: int
    tokenizer_digest: str
    num_train_bytes: int
    num_train_tokens: int
    num_held_bytes: int
    num_held_tokens: int
    baselines: dict[str, float]
    origin: str

    @classmethod
    def parsed(cls, fields: dict[str, Any]) -> Self:
        fields["baselines"] = {name: float(bits) for name, bits in fields["baselines"].items()}
        return super().parsed(fields)

    def shape(self, dropout: float = 0.0) -> DecoderShape:
        """The shape of the decoder."""
        return DecoderShape(
            vocab_size=self.vocab_size, context=self.context, depth=self.depth, dropout=dropout
        )
