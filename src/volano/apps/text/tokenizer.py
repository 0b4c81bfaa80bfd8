"""The byte-level byte-pair encoding (Sennrich et al. 2016; GPT-2's alphabet of bytes), trained on a
person's own text with Hugging Face ``tokenizers``. It loses nothing: the bytes of a text's tokens
are the text's bytes."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volano.data import MOST_TOKENS
from volano.errors import CheckpointError
from volano.record.files import read_bytes

# Stands before each document, so that its first token has something before it.
SEPARATOR, SEPARATOR_ID = "<|document|>", 0
# Pieces in which documents are encoded, and how much text goes to the library at once; it encodes
# with all cores.
_PIECE_CHARACTERS, _BATCH_CHARACTERS = 2**18, 2**23
_NUM_BYTES = 256


class Tokenizer:
    """A tokenizer: text to ids and back.

    Args:
        library: a ``tokenizers.Tokenizer`` as :func:`train_tokenizer` makes it.
    """

    def __init__(self, library: Any) -> None:
        # A text that holds the separator's letters is text all the same.
        library.encode_special_tokens = True
        self._library = library
        self.vocab_size: int = library.get_vocab_size()

    @functools.cached_property
    def bytes_of(self) -> tuple[bytes, ...]:
        """The bytes of each id; none for the separator."""
        byte_of = {letter: byte for byte, letter in enumerate(_alphabet())}
        names = [self._library.id_to_token(number) for number in range(self.vocab_size)]
        return (b"", *(bytes(byte_of[letter] for letter in name) for name in names[1:]))

    @functools.cached_property
    def num_bytes_of(self) -> np.ndarray:
        """Returns how many bytes each id stands for, int64 [vocab_size]."""
        return np.array([len(content) for content in self.bytes_of], dtype=np.int64)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without a separator."""
        return self._library.encode(text).ids

    def encode_documents(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """Yields each document's separator and ids, uint16, in pieces."""
        # Of encodings only the ids are wanted; newer libraries leave the places in the text out.
        encode = getattr(self._library, "encode_batch_fast", self._library.encode_batch)
        for batch in _batches(texts):
            encodings = encode([piece for _, piece in batch])
            for (is_first, _), encoding in zip(batch, encodings, strict=True):
                ids = encoding.ids
                yield np.array([SEPARATOR_ID, *ids] if is_first else ids, dtype=np.uint16)

    def decode(self, ids: Iterable[int]) -> bytes:
        """The bytes of ids; not always whole characters."""
        return b"".join(self.bytes_of[number] for number in ids)

    def to_bytes(self) -> bytes:
        """The content of ``tokenizer.json``."""
        return (self._library.to_str(pretty=False) + "\n").encode()

    def digest(self) -> str:
        """The digest of :meth:`to_bytes`: by it a run knows its tokenizer again."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:32]


def choose_vocab_size(num_bytes: int) -> int:
    """Returns how many tokens suit so much text.

    2,048 from 1 to 10 MB, 4,096 and 8,192 up to 200 MB, 16,384 and 32,768 above. Measured on 5 MB
    of plays: one minute of one core reached 2.53 bits per byte with 2,048 and 2.99 with bytes
    alone. Below 1 MB a token for each 500 bytes, or merges would be learned by heart.
    """
    for most_bytes, size in ((10e6, 2048), (50e6, 4096), (200e6, 8192), (1e9, 16384)):
        if num_bytes < most_bytes:
            few = 2 ** max(9, (num_bytes // 500).bit_length() - 1)
            return min(size, few)
    return MOST_TOKENS


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learns merges from texts until there are ``vocab_size`` tokens, or no pair occurs twice."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    library.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[SEPARATOR],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces = (piece for batch in _batches(texts) for _, piece in batch)
    library.train_from_iterator(pieces, trainer)
    return Tokenizer(library)


def load_tokenizer(path: Path, digest: str) -> Tokenizer:
    """The tokenizer of a run.

    Raises:
        CheckpointError: it is missing, damaged, or another than the run's.
    """
    from tokenizers import Tokenizer as Library

    try:
        tokenizer = Tokenizer(Library.from_str(read_bytes(path).decode().rstrip("\n")))
    except OSError as error:
        raise CheckpointError(
            "A run must hold its tokenizer", got=f"{path}: {error.strerror}"
        ) from error
    except Exception as error:  # the library raises Exception itself
        raise CheckpointError("tokenizer.json must be readable", got=f"{path}: {error}") from error
    if tokenizer.digest() != digest:
        raise CheckpointError(
            "The tokenizer must belong to the run",
            got=f"{path} with digest {tokenizer.digest()}, and text.json says {digest}",
            remedy="Put back the tokenizer.json with which the run was trained; its tokens are "
            "others in another",
        )
    return tokenizer


def _batches(texts: Iterable[str]) -> Iterator[list[tuple[bool, str]]]:
    """Yields pieces of documents, and whether each begins one, gathered to batches."""
    batch: list[tuple[bool, str]] = []
    size = 0
    for text in texts:
        for number, piece in enumerate(_pieces(text)):
            batch.append((number == 0, piece))
            size += len(piece)
            if size >= _BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _pieces(text: str) -> Sequence[str]:
    """The text cut behind line breaks, where the encoding sees the fewest tokens that could have
    gone across."""
    pieces: list[str] = []
    start = 0
    while len(text) - start > _PIECE_CHARACTERS:
        line = text.rfind("\n", start + 1, start + _PIECE_CHARACTERS)
        stop = line + 1 if line > start else start + _PIECE_CHARACTERS
        pieces.append(text[start:stop])
        start = stop
    return [*pieces, text[start:]]


@functools.cache
def _alphabet() -> tuple[str, ...]:
    """The letter that stands for each byte: printable ones for themselves, the others from U+0100
    on (GPT-2)."""
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    others = iter(range(_NUM_BYTES, 2 * _NUM_BYTES))
    return tuple(
        chr(byte) if byte in printable else chr(next(others)) for byte in range(_NUM_BYTES)
    )
