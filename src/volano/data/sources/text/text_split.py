"""Decides which texts are held out, in one pass over a source; copies of held-out text are left
out, because they would flatter the figures.

Each document is held out or not by a hash of its own content and the seed, whatever else there is:
a new file moves no other one to the other side. So the share of the bytes that is held out is that
of so many throws of a die. Only where the die gives far too little or too much is it set right, by
the documents whose hashes are nearest; there alone a new document can move others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from volano.data.counters import counter_hash
from volano.data.feed.fetch import Fault
from volano.data.sources.split import BY_CONTENT, BY_PLACE
from volano.data.sources.text.texts import Document, TextSource
from volano.errors import DataError

# The share of the bytes that is held out, and about the largest number of them: enough for a third
# digit of bits per byte, and quick to evaluate.
TEXT_SHARE, _MOST_HELD_BYTES = 0.07, 250_000
# The die is set right if it holds out less or more than so many times the share.
_LEAST_OF_SHARE, _MOST_OF_SHARE = 0.3, 2.0
_LEAST_WITH_END = 1000  # bytes; a document of less has no end that says anything
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
        ended: documents of which ``share`` is held out, at the end, if they are too few or too
            large to be held out whole.
        share: the share of the text that is held out, on the average.
        copies: exact copies of those two, which are left out: a model trained on them has seen what
            is held out, and evaluated they would count more than once.
        num_bytes: bytes of text in all (UTF-8), without ``copies``.
        faults: documents that could not be read.
        notices: notices for the user.
    """

    held: frozenset[int]
    num_bytes: int
    ended: frozenset[int] = frozenset()
    share: float = TEXT_SHARE
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
        if number in self.ended:
            end = _end_of(document.text, self.share)
            return document.text[:end], document.text[end:]
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

    def groups(self, seed: int) -> list[tuple[int, list[int]]]:
        """Returns the chance and the numbers of each group of equal documents, by chance."""
        groups: dict[bytes, list[int]] = {}
        for number, digest in enumerate(self.digests):
            groups.setdefault(digest, []).append(number)
        chances = {
            digest: counter_hash(_TEXT_SPLIT, seed, int.from_bytes(digest, "big"))
            for digest in groups
        }
        return sorted((chances[digest], numbers) for digest, numbers in groups.items())


def split_texts(source: TextSource, *, seed: int, by: str = BY_CONTENT) -> TextSplit:
    """Holds out about 7 % of the bytes, at most about 250 kB, by whole documents and a hash of
    their content and ``seed``. If they are too few or too large for that, holds out the end of each
    of them. Exact copies of what is held out are left out.

    Args:
        source: the texts.
        seed: the seed of the hashes.
        by: "content", or "place" as runs of earlier versions.

    Raises:
        DataError: there is no text.
    """
    faults: list[Fault] = []
    scan = _Scan()
    for document in source.read(faults):
        scan.add(document.text)
    if not scan.sizes:
        reason = f": {faults[0].path}: {faults[0].reason}" if faults else ""
        raise DataError("There must be text to train on", got=f"none in {source.origin}{reason}")
    groups = scan.groups(seed)
    held, ended, share = (_as_before if by == BY_PLACE else _choose)(scan, groups)
    out = held | ended
    copies = frozenset(one for _, same in groups if out & {*same} for one in {*same} - out)
    num_copies = len(scan.sizes) - len(groups)
    notices = [*_copy_notices(num_copies, len(copies)), *_header_notices(scan.heads)]
    if ended:
        notices.append(
            f"held out: the last {100 * share:.2g} % of {len(ended):,} of {len(scan.sizes):,} "
            "documents, because none is small enough to be held out whole"
        )
    return TextSplit(
        held=held, ended=ended, share=share, copies=copies,
        num_bytes=sum(size for one, size in enumerate(scan.sizes) if one not in copies),
        faults=tuple(faults), notices=tuple(notices),
    )  # fmt: skip


_Groups = Sequence[tuple[int, list[int]]]
_Choice = tuple[frozenset[int], frozenset[int], float]


def _choose(scan: _Scan, groups: _Groups) -> _Choice:
    """Returns the documents held out whole, those of which the end is held out, and the share."""
    num_bytes = sum(scan.sizes[same[0]] for _, same in groups)
    share = TEXT_SHARE
    while share * num_bytes > _MOST_HELD_BYTES:  # what was held out of less is partly trained on
        share /= 2
    held: set[int] = set()
    held_bytes = 0
    least, most = (times * share * num_bytes for times in (_LEAST_OF_SHARE, _MOST_OF_SHARE))
    for chance, same in groups:
        size = scan.sizes[same[0]]
        if (chance < share * 2**64 or held_bytes < least) and held_bytes + size <= most:
            held.add(same[0])
            held_bytes += size
    if held_bytes >= least:
        return frozenset(held), frozenset(), share
    firsts = [same[0] for _, same in groups]
    largest = max(firsts, key=scan.sizes.__getitem__)
    ended = {one for one in firsts if scan.sizes[one] >= _LEAST_WITH_END} | {largest}
    return frozenset(), frozenset(ended), share


def _as_before(scan: _Scan, groups: _Groups) -> _Choice:
    """Returns the same by the rule of earlier versions: in the order of the hashes, as many as the
    share of all bytes takes, or else the end of the largest."""
    target = min(_MOST_HELD_BYTES, TEXT_SHARE * sum(scan.sizes))
    held: set[int] = set()
    held_bytes = 0
    for _, same in groups:
        size = sum(scan.sizes[one] for one in same)
        if held_bytes < target and held_bytes + size <= 1.5 * target:
            held.update(same)
            held_bytes += size
    if held_bytes >= _LEAST_OF_SHARE * target:
        return frozenset(held), frozenset(), TEXT_SHARE
    largest = max(range(len(scan.sizes)), key=scan.sizes.__getitem__)
    num_copies = scan.digests.count(scan.digests[largest]) - 1
    num_bytes = sum(scan.sizes) - num_copies * scan.sizes[largest]
    share = min(_MOST_HELD_BYTES, TEXT_SHARE * num_bytes) / scan.sizes[largest]
    return frozenset(), frozenset({largest}), share


def _end_of(text: str, share: float) -> int:
    """Returns the character at which the last ``share`` of a text begins: at a line's beginning if
    one is near, within the second half of the text."""
    start = max(len(text) // 2, len(text) - int(share * len(text)))
    line = text.find("\n", start, start + 2000)
    return start if line < 0 or line + 1 >= len(text) else line + 1


def _copy_notices(num_copies: int, num_left_out: int) -> list[str]:
    if not num_copies:
        return []
    said = (
        f"{num_copies:,} documents are exact copies of others; copies stay on one side of the split"
    )
    return [
        said + (f", and {num_left_out:,} of what is held out are not read" if num_left_out else "")
    ]


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
