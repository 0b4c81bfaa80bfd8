"""The pretrained encoders of texts: a network of transformers with its tokenizer, and features that
are averaged over the tokens of a text.

Shapes: N texts, T tokens, F features.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from volano.errors import UsageError
from volano.pretrained.transformers_library import (
    config_of,
    load_network,
    read_bytes_of,
    read_json_of,
)
from volano.pretrained.weights import digest_of_weights

TOKENIZER = "tokenizer.json"
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
    """

    def __init__(self, content: bytes, most_tokens: int, padding_id: int) -> None:
        from tokenizers import Tokenizer

        self.content, self.most_tokens, self.padding_id = content, most_tokens, padding_id
        self._library: Any = Tokenizer.from_str(content.decode())
        self._library.no_padding()
        self._library.enable_truncation(most_tokens)

    @property
    def digest(self) -> str:
        """The digest of the content."""
        return hashlib.sha256(self.content).hexdigest()[:32]

    @property
    def padding(self) -> str | None:
        """The token that fills short texts up."""
        return self._library.id_to_token(self.padding_id)

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
            num_cut=num_cut,
        )


@dataclass(frozen=True, kw_only=True)
class TokenTexts:
    """The tokens of texts: text ``i`` has those from ``offsets[i]`` to ``offsets[i + 1]``.

    Attributes:
        ids: int32 [tokens].
        offsets: int64 [N + 1].
        padding_id: see :class:`EncoderTokenizer`.
        num_cut: the number of texts of which something was left out.
    """

    ids: np.ndarray
    offsets: np.ndarray
    padding_id: int
    num_cut: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def padded(self, rows: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]:
        """Returns ids int32 [N, T] of some texts, filled up, and which of them are tokens, bool
        [N, T]."""
        starts, sizes = self.offsets[:-1][rows], np.diff(self.offsets)[rows]
        longest = _PAD_TO * -(-max(1, int(sizes.max(initial=1))) // _PAD_TO)
        places = np.arange(longest)
        is_token = places < sizes[:, None]
        ids = np.full(is_token.shape, self.padding_id, dtype=np.int32)
        ids[is_token] = self.ids[(starts[:, None] + places)[is_token]]
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
        """Runs the forward pass; see the class."""
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
        tokenizer: its tokenizer.
        digest: of its weights and its tokenizer.
        trunk: with its weights.
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
    network = load_network(name, "AutoModel")
    pooling = read_json_of(name, "1_Pooling/config.json")
    modules: Any = read_json_of(name, "modules.json")
    is_unit = any(str(one.get("type", "")).endswith("Normalize") for one in modules or ())
    tokenizer, said = load_encoder_tokenizer(name, config)
    trunk = TextTrunk(network, "cls" if pooling.get("pooling_mode_cls_token") else "mean", is_unit)
    width = config.get("hidden_size") or config.get("n_embd") or config.get("dim")
    if width is None:
        raise UsageError(
            "An encoder of texts must state its `hidden_size`", got=f"{reference} without one"
        )
    return TextEncoder(
        reference=reference, config=config, pooling=trunk.pooling, is_unit=is_unit,
        num_features=int(width), tokenizer=tokenizer,
        digest=f"{digest_of_weights(trunk)}{tokenizer.digest}", trunk=trunk.eval(), notices=said,
    )  # fmt: skip


def load_encoder_tokenizer(
    name: str, config: dict[str, Any]
) -> tuple[EncoderTokenizer, tuple[str, ...]]:
    """Returns a network's own tokenizer, and notices.

    Raises:
        UsageError: there is no ``tokenizer.json``.
    """
    content = read_bytes_of(name, TOKENIZER)
    if content is None:
        raise UsageError(
            f"A pretrained network of texts must have {TOKENIZER}",
            got=f"{name} without one",
            remedy="Save its fast tokenizer: AutoTokenizer.from_pretrained(NAME).save_pretrained("
            "FOLDER)",
        )
    stated = read_json_of(name, "tokenizer_config.json")
    padding_id, said = _padding_id(content, stated, name)
    most = [
        read_json_of(name, "sentence_bert_config.json").get("max_seq_length"),
        config.get("max_position_embeddings") or config.get("n_positions"),
        stated.get("model_max_length"),
    ]
    # RoBERTa counts its positions from the padding id on.
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert") and most[1]:
        most[1] -= padding_id + 1
    tokens = int(min([n for n in most if n and 0 < n < 1e6] or [_MOST_TOKENS]))
    return EncoderTokenizer(content, tokens, padding_id), said


def _padding_id(content: bytes, stated: dict[str, Any], name: str) -> tuple[int, tuple[str, ...]]:
    from tokenizers import Tokenizer

    library: Any = Tokenizer.from_str(content.decode())
    token = stated.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    found = library.padding["pad_id"] if library.padding else None
    found = library.token_to_id(token) if token else found
    if found is not None:
        return int(found), ()
    return 0, (
        f"{name} has no padding token: short texts are filled up with id 0, which is masked",
    )


def cut_in_words(texts: TokenTexts, most_tokens: int) -> tuple[str, ...]:
    """Returns a notice of texts that were cut, if there are any."""
    if not texts.num_cut:
        return ()
    return (
        f"{texts.num_cut:,} of {len(texts):,} texts ({texts.num_cut / len(texts):.1%}) are longer "
        f"than the {most_tokens} tokens that the encoder takes: cut",
    )
