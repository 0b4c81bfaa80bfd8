"""Makes tokens in files from a source of texts: splits, learns the tokenizer, encodes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from volano.apps.text.compressors import MOST_TRAINING_BYTES, CompressorFigures
from volano.apps.text.tokenizer import Tokenizer, choose_vocab_size, train_tokenizer
from volano.data import Fault, open_tokens, write_tokens
from volano.data.sources import BY_CONTENT, TextSource, TextSplit, find_texts, split_texts
from volano.errors import DataError
from volano.record.files import check_exists

TRAIN_FILE, HELD_FILE = "tokens-train.npy", "tokens-held.npy"
# Of less, nothing can be held out that says anything.
LEAST_BYTES = 1000
# Of a larger text every k-th document is taken: merges learned from half of 12 MB leave 0.5 % more
# tokens, those of a quarter 2 % (docs/log.md).
_MOST_TOKENIZER_BYTES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The tokens of a text, each document with a separator before it.

    Attributes:
        tokenizer: learned on the training part.
        train, held: ids uint16 [N], mapped.
        num_train_bytes: UTF-8 bytes of the training part.
        num_held_bytes: the bytes of the held-out part.
        baselines: bits per byte of xz and bz2, see ``CompressorFigures``.
        origin: the source of the text, in words.
        faults: the examples that could not be read.
        notices: texts that a person should read.
    """

    tokenizer: Tokenizer
    train: np.ndarray
    held: np.ndarray
    num_train_bytes: int
    num_held_bytes: int
    baselines: dict[str, float]
    origin: str
    faults: tuple[Fault, ...]
    notices: tuple[str, ...]


def prepare_corpus(
    source: TextSource,
    folder: Path,
    *,
    seed: int,
    by: str = BY_CONTENT,
    compressors_seconds: float | None = None,
) -> Corpus:
    """Splits the source (``by``: as ``split_texts``), learns a tokenizer on its training part, and
    writes the tokens of both into ``folder``; for ``compressors_seconds`` see
    ``CompressorFigures``.

    Raises:
        DataError: there is no text, or too little.
    """
    split = split_texts(source, seed=seed, by=by)
    if split.num_bytes < LEAST_BYTES:
        raise DataError(
            f"A text to train on must have at least {LEAST_BYTES:,} bytes",
            got=f"{split.num_bytes:,} in {source.origin}",
            remedy="Give more text",
        )
    train = part_reader(source, split, part=0)
    held_texts = list(part_reader(source, split, part=1)())
    held_bytes = "".join(held_texts).encode()
    num_train_bytes = split.num_bytes - len(held_bytes)
    with CompressorFigures(
        _last_bytes(train),
        held_bytes,
        num_training_bytes=num_train_bytes,
        seconds=compressors_seconds,
    ) as figures:
        vocab_size = choose_vocab_size(num_train_bytes)
        # From everywhere: the first ones by name may be of one language or author.
        every = max(1, -(-num_train_bytes // _MOST_TOKENIZER_BYTES))
        tokenizer = train_tokenizer(itertools.islice(train(), 0, None, every), vocab_size)
        write_tokens(folder / TRAIN_FILE, tokenizer.encode_documents(train()))
        write_tokens(folder / HELD_FILE, tokenizer.encode_documents(held_texts))
        baselines = figures.result()
    return Corpus(
        tokenizer=tokenizer,
        train=open_tokens(folder / TRAIN_FILE),
        held=open_tokens(folder / HELD_FILE),
        num_train_bytes=num_train_bytes,
        num_held_bytes=len(held_bytes),
        baselines=baselines,
        origin=source.origin,
        faults=split.faults,
        notices=(*source.notices, *split.notices, *figures.notices),
    )


def part_reader(source: TextSource, split: TextSplit, *, part: int) -> Callable[[], Iterator[str]]:
    """Returns what yields the training part (0) of each document, or the held-out one (1)."""

    def read() -> Iterator[str]:
        for number, document in enumerate(source.read()):
            text = split.parts(number, document)[part]
            if text:
                yield text

    return read


def texts_to_evaluate(path: Path) -> tuple[TextSource, list[str], list[Fault]]:
    """Returns a source of texts, all of them, and what could not be read.

    Raises:
        UsageError: the path does not exist.
        DataError: there is no text.
    """
    check_exists(path)  # there is no other text to evaluate on
    faults: list[Fault] = []
    source = find_texts(path)
    texts = [document.text for document in source.read(faults)]
    if not texts:
        reason = f": {faults[0].reason}" if faults else ""
        raise DataError("There must be text to evaluate on", got=f"none in {source.origin}{reason}")
    return source, texts, faults


def _last_bytes(read: Callable[[], Iterator[str]]) -> bytes:
    """The end of the training text, at most ``MOST_TRAINING_BYTES``."""
    kept: list[bytes] = []
    size = 0
    for text in read():
        kept.append(text.encode())
        size += len(kept[-1])
        while size - len(kept[0]) >= MOST_TRAINING_BYTES:
            size -= len(kept.pop(0))
    return b"".join(kept)[-MOST_TRAINING_BYTES:]
