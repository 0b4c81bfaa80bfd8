"""Writes text, one token after the other, with a cache of keys and values."""

from __future__ import annotations

import codecs
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from volano.apps.text.network import Cache, Decoder
from volano.apps.text.options import TextGenerationOptions
from volano.apps.text.tokenizer import SEPARATOR_ID, Tokenizer
from volano.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TokenSampling:
    """The settings by which the next token is drawn.

    Attributes:
        temperature: divides the logits; 0 always takes the likeliest.
        top_k: draw among so many of the likeliest; None among all.
        top_p: draw among the likeliest that together have at least this probability (Holtzman et
            al. 2020).
        seed: the seed of the draws.
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    @classmethod
    def of(cls, given: TextGenerationOptions) -> TokenSampling:
        """Returns the settings that a person gives."""
        return cls(
            temperature=given.temperature, top_k=given.top_k, top_p=given.top_p, seed=given.seed
        )

    def draw(self, logits: Tensor, generator: torch.Generator) -> int:
        """An id from logits fp32 [V] on the host."""
        if self.temperature == 0:
            return int(logits.argmax())
        if self.top_k is not None and self.top_k < len(logits):
            values, ids = logits.topk(self.top_k)
        elif self.top_p < 1:
            values, ids = logits.sort(descending=True)
        else:
            values, ids = logits, None
        # From the largest down, in fp64: a tiny temperature makes -inf of the others, never
        # infinity or NaN.
        probabilities = ((values - values.max()).cpu().double() / self.temperature).softmax(0)
        if self.top_p < 1:
            before = probabilities.cumsum(0) - probabilities
            probabilities = torch.where(before < self.top_p, probabilities, 0)
        place = int(torch.multinomial(probabilities, 1, generator=generator))
        return place if ids is None else int(ids[place])


def prompt_ids(tokenizer: Tokenizer, prompt: str, context: int) -> tuple[list[int], int]:
    """A prompt's ids behind a separator, at most ``context - 1`` of them, and how many were dropped
    at the front."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            "`prompt` must be text in the encoding of the terminal, usually UTF-8",
            got=repr(prompt[:40]),
        ) from error
    ids = [SEPARATOR_ID, *tokenizer.encode(prompt)]
    num_dropped = max(0, len(ids) - (context - 1))
    return ids[num_dropped:], num_dropped


def generate_ids(
    model: Decoder, ids: Sequence[int], num_tokens: int, sampling: TokenSampling
) -> Iterator[int]:
    """The ids that follow ``ids``, up to ``num_tokens`` or the end of a document.

    When as many tokens as the context are in view, the last half of them is read again and the rest
    forgotten; so each token is drawn from at least half a context (or from all that there is) and
    at most a whole one.

    Args:
        model: the model, in evaluation mode, with fp32 weights.
        ids: the ids, at least one and fewer than the context.
        num_tokens: the number of tokens to write.
        sampling: the settings of the draws.
    """
    context, device = model.shape.context, model.embedding.weight.device
    assert 0 < len(ids) < context
    generator = torch.Generator().manual_seed(sampling.seed)
    seen, new = list(ids), list(ids)
    cache = Cache(model.shape, device)
    for _ in range(num_tokens):
        if cache.length + len(new) > context:
            cache.length, new = 0, seen[-(context // 2) :]
        # Not around the yield: it would hold for whoever takes the token.
        with torch.inference_mode():
            features = model.features(torch.tensor([new], device=device), cache)
            logits = model.logits(features[0, -1]).cpu()
        drawn = sampling.draw(logits, generator)
        if drawn == SEPARATOR_ID:
            return
        yield drawn
        seen = [*seen[-context:], drawn]
        new = [drawn]


def stream_text(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """Yields text as soon as its characters are whole; bytes that make none become U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for number in ids:
        yield decoder.decode(tokenizer.bytes_of[number])
    yield decoder.decode(b"", final=True)


class WrittenText(ABC):
    """The text that a run's model writes, piece by piece: iterate over it once, then read
    ``figures``. A subclass yields the pieces, and counts the tokens.

    Attributes:
        run: the run's folder.
        prompt: the prompt as given.
        notices: texts that a person should read before the first piece.
        text: the text that has been written so far, without the prompt.
        num_written: the number of its tokens.
    """

    def __init__(self, run: Path, given: TextGenerationOptions) -> None:
        self.run, self.prompt, self.text = run, given.prompt, ""
        self.notices: list[str] = []
        self.num_written = 0
        self._num, self._seconds = given.tokens, 0.0

    @abstractmethod
    def pieces(self) -> Iterator[str]:
        """Yields the text as soon as its characters are whole."""

    def __iter__(self) -> Iterator[str]:
        start = time.perf_counter()
        for piece in self.pieces():
            self._seconds = time.perf_counter() - start
            self.text += piece
            yield piece

    def figures(self) -> dict[str, Any]:
        """Returns all of it as JSON values; ``tokens_per_second`` counts the reading of the prompt
        too."""
        return {
            "run": str(self.run),
            "prompt": self.prompt,
            "text": self.text,
            "num_tokens": self.num_written,
            "is_ended": self.num_written < self._num,
            "seconds": round(self._seconds, 4),
            "tokens_per_second": round(self.num_written / max(self._seconds, 1e-9), 1),
            "notices": self.notices,
        }


@dataclass(frozen=True, kw_only=True)
class TextPreview:
    """The ``preview`` of a Task: a continuation of the same beginning, drawn with the same numbers
    each time.

    Attributes:
        tokenizer: the tokenizer of the model.
        prompt: the beginning.
        num_tokens: the number of tokens to write.
    """

    tokenizer: Tokenizer
    prompt: str
    num_tokens: int = 60

    def __call__(self, model: torch.nn.Module) -> dict[str, str]:
        """Returns ``prompt`` and ``text``, the model's continuation."""
        assert isinstance(model, Decoder)
        ids, _ = prompt_ids(self.tokenizer, self.prompt, model.shape.context)
        written = generate_ids(model, ids, self.num_tokens, TokenSampling())
        return {"prompt": self.prompt, "text": "".join(stream_text(self.tokenizer, written))}
