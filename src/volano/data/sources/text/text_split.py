"""Decides which texts are held out, in one pass over a source; copies of held-out text are left
out, because they would flatter the figures."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from volano.data.counters import counter_hash
from volano.data.feed.fetch import Fault
from volano.data.sources.text.texts import Document, TextSource
from volano.errors import DataError

# The share of the bytes that is held out, and the largest number of them: enough for a third digit
# of bits per byte, and quick to evaluate.
TEXT_SHARE, _MOST_HELD_BYTES = 0.07, 250_000
_TEXT_SPLIT = 22  # first counter of the hashes
# A header: leading lines of which most stand at the head of many other documents too.
_HEAD_LINES, _LEAST_LINE = 40, 20
_MOST_HEADS = 2000
_SHARED_BY, _LEAST_DOCUMENTS = 0.2, 4


@dataclass(frozen=True, kw_only=True)
class TextSplit:
    """The numbers of documents on each side of the split, as ``TextSource.read`` counts them.

    Attributes:
        held: documents held out whole.
        tail: (number, character) of one more document, held out from that character on, if
            documents are too few or too large to be held out whole.
        copies: exact copies of that one, which are left out: a model trained on them has seen its
            end.
        num_bytes: bytes of text in all (UTF-8), without ``copies``.
        faults: documents that could not be read.
        notices: notices for the user.
    """

    held: frozenset[int]
    tail: tuple[int, int] | None
    num_bytes: int
    copies: frozenset[int] = frozenset()
    faults: tuple[Fault, ...] = ()
    notices: tuple[str, ...] = ()

    def parts(self, number: int, document: Document) -> tuple[str, str]:
        """Returns the document's text to train on and its text held out; one of them is mostly
        empty."""
        if number in self.copies:
            return "", ""
        if number in self.held:
            return "", document.text
        if self.tail is not None and self.tail[0] == number:
            return document.text[: self.tail[1]], document.text[self.tail[1] :]
        return document.text, ""


@dataclass
class _Scan:
    """The findings of one pass over the documents."""

    sizes: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    heads: list[list[str]] = field(default_factory=list)

    def add(self, text: str) -> None:
        content = text.encode()
        self.sizes.append(len(content))
        self.digests.append(hashlib.blake2b(content, digest_size=8).digest())
        if len(self.heads) < _MOST_HEADS:
            lines = text[: 100 * _HEAD_LINES].splitlines()[:_HEAD_LINES]
            self.heads.append([line.strip() for line in lines if len(line.strip()) >= _LEAST_LINE])

    def copies_of(self, number: int) -> frozenset[int]:
        """Returns the other documents with the same content."""
        same = (
            other for other, digest in enumerate(self.digests) if digest == self.digests[number]
        )
        return frozenset(other for other in same if other != number)


def split_texts(source: TextSource, *, seed: int) -> TextSplit:
    """Holds out about 7 % of the bytes, at most 250 kB, by whole documents in the order of a hash
    of their content and ``seed``; exact copies stay on one side. If no document is small enough for
    that, holds out the end of the largest one, whose copies are left out.

    Raises:
        DataError: there is no text.
    """
    faults: list[Fault] = []
    scan = _Scan()
    largest, largest_bytes = (0, ""), 0
    for number, document in enumerate(source.read(faults)):
        scan.add(document.text)
        if scan.sizes[number] > largest_bytes:
            largest, largest_bytes = (number, document.text), scan.sizes[number]
    if not scan.sizes:
        reason = f": {faults[0].path}: {faults[0].reason}" if faults else ""
        raise DataError("There must be text to train on", got=f"none in {source.origin}{reason}")
    held, num_copies = _choose(scan, min(_MOST_HELD_BYTES, TEXT_SHARE * sum(scan.sizes)), seed)
    notices = [*_copy_notices(num_copies), *_header_notices(scan.heads)]
    num_bytes, tail, copies = sum(scan.sizes), None, frozenset[int]()
    if not held:
        copies = scan.copies_of(largest[0])
        num_bytes -= len(copies) * largest_bytes
        tail = (
            largest[0],
            _cut(largest[1], largest_bytes, min(_MOST_HELD_BYTES, TEXT_SHARE * num_bytes)),
        )
        notices.append(
            f"held out: the last {len(largest[1]) - tail[1]:,} characters of the largest of "
            f"{len(scan.sizes):,} documents, because none is small enough to be held out whole"
            + (f"; its {len(copies):,} exact copies are not read" if copies else "")
        )
    return TextSplit(
        held=frozenset(held), tail=tail, copies=copies, num_bytes=num_bytes,
        faults=tuple(faults), notices=tuple(notices),
    )  # fmt: skip


def _choose(scan: _Scan, target: float, seed: int) -> tuple[list[int], int]:
    groups: dict[bytes, list[int]] = {}
    for number, digest in enumerate(scan.digests):
        groups.setdefault(digest, []).append(number)
    held: list[int] = []
    num_bytes = 0
    for digest in sorted(
        groups, key=lambda digest: counter_hash(_TEXT_SPLIT, seed, int.from_bytes(digest, "big"))
    ):
        size = sum(scan.sizes[number] for number in groups[digest])
        # Up to half as much again; larger documents are passed over.
        if num_bytes < target and num_bytes + size <= 1.5 * target:
            held += groups[digest]
            num_bytes += size
    is_enough = num_bytes >= 0.3 * target
    return (held if is_enough else []), len(scan.digests) - len(groups)


def _cut(text: str, num_bytes: int, target: float) -> int:
    """Returns the character at which a tail of about ``target`` of the text's bytes begins: at a
    line's beginning if one is near, within the second half of the text."""
    start = max(len(text) // 2, len(text) - int(target * len(text) / num_bytes))
    line = text.find("\n", start, start + 2000)
    return start if line < 0 or line + 1 >= len(text) else line + 1


def _copy_notices(copies: int) -> list[str]:
    told = f"{copies:,} documents are exact copies of others; copies stay on one side of the split"
    return [told] if copies else []


def _header_notices(heads: list[list[str]]) -> list[str]:
    if len(heads) < _LEAST_DOCUMENTS:
        return []
    counts = Counter(line for lines in heads for line in set(lines))
    common = {
        line
        for line, count in counts.items()
        if count >= max(_LEAST_DOCUMENTS, _SHARED_BY * len(heads))
    }
    shared = [sum(len(line) for line in lines if line in common) for lines in heads]
    having = [size for size in shared if size >= 4 * _LEAST_LINE]
    if len(having) < max(_LEAST_DOCUMENTS, _SHARED_BY * len(heads)):
        return []
    return [
        f"near-duplicate headers: {len(having):,} of {len(heads):,} documents share leading "
        f"lines, about {sum(having) // len(having):,} characters each; whatever has seen the "
        "training text looks better by it"
    ]
