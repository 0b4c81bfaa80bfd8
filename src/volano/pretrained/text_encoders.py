"""The pretrained encoders of texts: a network of transformers with its tokenizer, and features that
are averaged over the tokens of a text.

Shapes: N texts, T tokens, F features.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from volano.errors import UsageError
from volano.pretrained.read_weights import digest_of_weights
from volano.pretrained.transformers_library import (
    ENCODER_AUTO,
    IDS,
    classes_of,
    config_of,
    load_network,
    made_tokenizer_of,
    read_bytes_of,
    read_json_of,
)

TOKENIZER, _CONFIG = "tokenizer.json", "tokenizer_config.json"
# Characters of a text that are looked at, a token: no language has more.
_CHARACTERS_A_TOKEN = 32
# Without a statement of the encoder's own.
_MOST_TOKENS = 512
_PAD_TO = 8


class EncoderTokenizer:
    """The tokenizer of an encoder.

    Args:
        content: the content of ``tokenizer.json``.
        most_tokens: tokens of a text that the encoder takes, its special ones included.
        padding_id: the id that fills short texts up.

    Raises:
        ValueError: the content is no tokenizer's.
    """

    def __init__(self, content: bytes, most_tokens: int, padding_id: int) -> None:
        self.content, self.most_tokens, self.padding_id = content, most_tokens, padding_id
        self._library = parsed_tokenizer(content)
        self._library.no_padding()
        self._library.enable_truncation(most_tokens)

    @property
    def digest(self) -> str:
        """The digest of the content."""
        return hashlib.sha256(self.content).hexdigest()[:32]

    def save(self, folder: Path, **tokens: str | None) -> None:
        """Writes it as ``AutoTokenizer`` loads it; ``tokens``: the special ones, by name."""
        stated = {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": self.most_tokens,
            **{name: token for name, token in tokens.items() if token is not None},
        }  # fmt: skip
        (folder / TOKENIZER).write_bytes(self.content)
        (folder / _CONFIG).write_text(json.dumps(stated, indent=2), encoding="utf-8")

    def token_of(self, number: int | None) -> str | None:
        """Returns the token of an id; None if there is none."""
        return None if number is None else self._library.id_to_token(number)

    def ids_of(self, text: str) -> list[int]:
        """Returns the ids of a whole text, without special ones."""
        self._library.no_truncation()
        try:
            return self._library.encode(text, add_special_tokens=False).ids
        finally:
            self._library.enable_truncation(self.most_tokens)

    def text_of(self, ids: Sequence[int]) -> str:
        """Returns the text of ids."""
        return self._library.decode(list(ids), skip_special_tokens=True)

    def encode(self, texts: Sequence[str]) -> TokenTexts:
        """Returns the tokens of texts, those that are too long cut."""
        most = _CHARACTERS_A_TOKEN * self.most_tokens
        found = self._library.encode_batch([text[:most] for text in texts])
        rows = [np.array(one.ids, dtype=np.int32) for one in found]
        num_cut = sum(
            bool(one.overflowing) or len(t) > most for one, t in zip(found, texts, strict=True)
        )
        return TokenTexts(
            ids=np.concatenate(rows) if rows else np.zeros(0, dtype=np.int32),
            offsets=np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
            padding_id=self.padding_id,
            most_tokens=self.most_tokens,
            num_cut=num_cut,
        )


def parsed_tokenizer(content: bytes) -> Any:
    """Returns the library's tokenizer of a content of ``tokenizer.json``.

    Raises:
        ValueError: it is none.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises nothing more special
        raise ValueError(f"{TOKENIZER} cannot be read: {error}") from error


@dataclass(frozen=True, kw_only=True)
class TokenTexts:
    """The tokens of texts: text ``i`` has those from ``offsets[i]`` to ``offsets[i + 1]``.

    Attributes:
        ids: int32 [tokens].
        offsets: int64 [N + 1].
        padding_id, most_tokens: see :class:`EncoderTokenizer`.
        num_cut: the number of texts of which something was left out.
    """

    ids: np.ndarray
    offsets: np.ndarray
    padding_id: int
    most_tokens: int
    num_cut: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def padded(self, rows: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]:
        """Returns ids int32 [N, T] of some texts, filled up, and which of them are tokens, bool
        [N, T]; a text without any has one that fills up."""
        starts, sizes = self.offsets[:-1][rows], np.diff(self.offsets)[rows]
        longest = _PAD_TO * -(-max(1, int(sizes.max(initial=1))) // _PAD_TO)
        longest = min(longest, self.most_tokens)  # a network may have positions for no more
        places = np.arange(longest)
        is_token = places < sizes[:, None]
        ids = np.full(is_token.shape, self.padding_id, dtype=np.int32)
        ids[is_token] = self.ids[(starts[:, None] + places)[is_token]]
        is_token[:, 0] = True  # nothing to attend to at all would give NaN
        return torch.from_numpy(ids), torch.from_numpy(is_token)


class TokenTextsDataset(Dataset[Any]):
    """The numbers of tokenized texts with their classes; :meth:`collate` makes padded batches.

    Args:
        texts: all of them.
        rows: the rows that this set holds, int64 [n].
        labels: int64, of all of them.
    """

    def __init__(self, texts: TokenTexts, rows: np.ndarray, labels: np.ndarray) -> None:
        self._texts, self._rows, self._labels = texts, rows, labels

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[TokenTextsDataset, int]:
        return self, index

    @staticmethod
    def collate(examples: list[tuple[TokenTextsDataset, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns ids int32 [N, T], which are tokens bool [N, T], and labels int64 [N]."""
        data = examples[0][0]
        rows = data._rows[[index for _, index in examples]]
        return (*data._texts.padded(rows), torch.from_numpy(data._labels[rows]))

    def fingerprint(self) -> str:
        """Returns the digest of the content."""
        digest = hashlib.sha256()
        for array in (self._texts.ids, self._texts.offsets, self._rows, self._labels):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:32]


class TextTrunk(nn.Module):
    """An encoder: ids int32 [N, T] and which are tokens bool [N, T] in, features fp32 [N, F] out.

    Args:
        encoder: a network of transformers that gives ``last_hidden_state``.
        pooling: ``"mean"`` of the tokens, or ``"cls"``, the first one's.
        is_unit: whether features are brought to length 1.
    """

    def __init__(self, encoder: nn.Module, pooling: str, is_unit: bool) -> None:
        super().__init__()
        self.encoder, self.pooling, self.is_unit = encoder, pooling, is_unit

    def forward(self, ids: Tensor, is_token: Tensor) -> Tensor:
        found = self.encoder(input_ids=ids.long(), attention_mask=is_token.long())
        features = found.last_hidden_state.float()
        if self.pooling == "mean":
            weights = is_token[:, :, None].float()
            features = (features * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        else:
            features = features[:, 0]
        return F.normalize(features, dim=1) if self.is_unit else features


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A pretrained encoder of texts.

    Attributes:
        reference: what names it.
        config: its configuration, by which it can be built again.
        pooling, is_unit: see :class:`TextTrunk`.
        num_features: what it gives of each text.
        digest: of its weights and its tokenizer.
        trunk: with its weights.
        classes: names of the classes of its own head, if it has one; it is left out.
        notices: texts that a person should read.
    """

    reference: str = field(repr=False)
    config: dict[str, Any] = field(repr=False)
    pooling: str
    is_unit: bool
    num_features: int
    tokenizer: EncoderTokenizer = field(repr=False)
    digest: str
    trunk: nn.Module = field(repr=False)
    classes: tuple[str, ...] = field(default=(), repr=False)
    notices: tuple[str, ...] = field(default=(), repr=False)

    def fresh_trunk(self) -> nn.Module:
        """Returns a copy of the trunk with the pretrained weights."""
        return copy.deepcopy(self.trunk)

    def in_words(self) -> str:
        """Returns what it is, in words."""
        return (
            f"{self.reference}: {self.num_features:,} features, {self.pooling} of at most "
            f"{self.tokenizer.most_tokens} tokens"
        )


def load_text_encoder(name: str, reference: str) -> TextEncoder:
    """Loads an encoder of transformers from a folder or its cache.

    Args:
        name: the folder, or the name in the cache.
        reference: what a person wrote.

    Raises:
        UsageError: it is not there, has no tokenizer, or its weights do not fit.
    """
    config = config_of(name)
    if config.get("is_encoder_decoder"):
        raise UsageError(
            "A network to classify texts with must be an encoder, or a language model, alone",
            got=f"{reference}, of kind {config.get('model_type')}, which has a decoder as well",
        )
    network = load_network(name, ENCODER_AUTO, takes=IDS)
    tokenizer, said = load_encoder_tokenizer(name, config, network)
    pooling, is_unit, more = _pooling_of(name)
    trunk = TextTrunk(network, pooling, is_unit)
    width = config.get("hidden_size") or config.get("n_embd") or config.get("dim")
    if width is None:
        raise UsageError(
            "An encoder of texts must state its `hidden_size`", got=f"{reference} without one"
        )
    return TextEncoder(
        reference=reference, config=config, pooling=pooling, is_unit=is_unit,
        num_features=int(width), tokenizer=tokenizer,
        digest=f"{digest_of_weights(trunk)}{tokenizer.digest}", trunk=trunk.eval(),
        classes=classes_of(config), notices=(*said, *more),
    )  # fmt: skip


def _pooling_of(name: str) -> tuple[str, bool, tuple[str, ...]]:
    """Returns how the modules of sentence-transformers next to a network pool its tokens, whether
    they bring features to length 1, and a notice of what else they do, which is left out."""
    stated, key = read_json_of(name, "1_Pooling/config.json"), "pooling_mode_"
    modes = {one.removeprefix(key) for one, on in stated.items() if one.startswith(key) and on}
    types = [
        str(one.get("type", "")).rpartition(".")[2]
        for one in read_json_of(name, "modules.json", list)
        if isinstance(one, dict)
    ]
    pooling = "cls" if "cls_token" in modes else "mean"
    others = sorted(modes - {"cls_token", "mean_tokens"})
    others += [one for one in types if one not in ("Transformer", "Pooling", "Normalize")]
    said = f"{name} states {', '.join(others)} too, which is left out: features are the {pooling}"
    return pooling, "Normalize" in types, (said,) if others else ()


def load_encoder_tokenizer(
    name: str, config: dict[str, Any], network: nn.Module
) -> tuple[EncoderTokenizer, tuple[str, ...]]:
    """Returns a network's own tokenizer, and notices.

    Raises:
        UsageError: there is no ``tokenizer.json``, nothing of which it can be made, or it is
            damaged or another network's.
    """
    content, made = _tokenizer_content(name)
    try:
        library = parsed_tokenizer(content)
    except ValueError as error:
        raise UsageError(
            "The tokenizer of a pretrained network must be readable", got=f"{name}: {error}"
        ) from error
    highest = max(library.get_vocab(with_added_tokens=False).values(), default=0)
    if highest >= (config.get("vocab_size") or math.inf):
        raise UsageError(
            "The tokenizer must be the network's own",
            got=f"ids up to {highest:,} and a network of {config['vocab_size']:,} in {name}",
        )
    stated = read_json_of(name, _CONFIG)
    padding_id, said = _padding_id(library, stated, config, name)
    most = [
        read_json_of(name, "sentence_bert_config.json").get("max_seq_length"),
        _num_positions(config, network),
        stated.get("model_max_length"),
    ]
    known = [int(n) for n in most if isinstance(n, int | float) and 0 < n < 1e6]
    return EncoderTokenizer(content, min(known, default=_MOST_TOKENS), padding_id), (*made, *said)


def _tokenizer_content(name: str) -> tuple[bytes, tuple[str, ...]]:
    """Returns a network's ``tokenizer.json``, and a notice if it was made of other files.

    Raises:
        UsageError: there is nothing of which it can be made.
    """
    content = read_bytes_of(name, TOKENIZER)
    if content is not None:
        return content, ()
    content = made_tokenizer_of(name)
    if content is None:
        raise UsageError(
            f"A pretrained network of texts must have {TOKENIZER}",
            got=f"{name} without one",
            remedy="Save its fast tokenizer: AutoTokenizer.from_pretrained(NAME).save_pretrained("
            "FOLDER)",
        )
    return content, (f"{name} has no {TOKENIZER}: transformers has made it of the other files",)


def _num_positions(config: dict[str, Any], network: nn.Module) -> int | None:
    """Returns the number of tokens for which a network has positions; None if it states none."""
    stated = config.get("max_position_embeddings") or config.get("n_positions")
    tables = (m for name, m in network.named_modules() if name.endswith("position_embeddings"))
    table = next((one for one in tables if isinstance(one, nn.Embedding)), None)
    if table is None or table.padding_idx is None:
        return stated
    # RoBERTa and its like count from the padding id on.
    return table.num_embeddings - table.padding_idx - 1


def _padding_id(
    library: Any, stated: dict[str, Any], config: dict[str, Any], name: str
) -> tuple[int, tuple[str, ...]]:
    """Returns the id that fills up, and a notice if the tokenizer has none."""
    token = stated.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    found = library.padding["pad_id"] if library.padding else None
    found = library.token_to_id(token) if token else found
    if found is not None:
        return int(found), ()
    own = max(0, config.get("pad_token_id") or 0)
    own = 0 if library.id_to_token(own) is None else own
    return own, (
        f"{name} has no padding token: short texts are filled up with id {own}, which is masked",
    )


def cut_in_words(num_cut: int, num_texts: int, most_tokens: int) -> tuple[str, ...]:
    """Returns a notice of texts that were cut, if there are any."""
    if not num_cut:
        return ()
    return (
        f"{num_cut:,} of {num_texts:,} texts ({num_cut / num_texts:.1%}) are longer than the "
        f"{most_tokens} tokens that the encoder takes: cut",
    )
