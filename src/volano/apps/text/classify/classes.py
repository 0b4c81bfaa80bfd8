"""From labelled texts to Tasks: two kinds of classifier, the bag of n-grams and the language model's head."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from volano.apps.text.classify.bag import (
    BagClassifier,
    BagDataset,
    BagObjective,
    HashedTexts,
    choose_buckets,
    hash_texts,
    inverse_frequencies,
)
from volano.apps.text.classify.classifier import (
    ClassifierObjective,
    DecoderClassifier,
    classifier_parameter_groups,
    token_arrays,
    token_rows,
)
from volano.apps.text.network import Decoder, DecoderShape, parameter_groups
from volano.apps.text.objective import NextToken, RandomOffsets
from volano.apps.text.recipe import choose_recipe
from volano.apps.text.tokenizer import Tokenizer
from volano.data import Fault, TokenWindows, permutation
from volano.data.sources import LabelledTexts, hold_out_rows, read_labelled_texts
from volano.device import Device
from volano.errors import CheckpointError
from volano.task import Task, linear, trapezoid
from volano.training import MuonAdamW

SCHEMA_VERSION = 1
BAG, HEAD = "bag of n-grams", "language model's head"
# Of the training texts, held back to choose between the two.
_CHOICE_SHARE = 0.1
_TOKENS_PER_STEP = 2048
_TEXTS_AT_ONCE = 256
# The decoder of a few seconds.
DEPTH, MOST_CONTEXT = 2, 128


@dataclass(frozen=True, kw_only=True)
class ClassesSpec:
    """A classifier of texts without its weights, kept in ``text.json``.

    Attributes:
        classes: names, in the order of the logits.
        kept: ``BAG`` or ``HEAD``.
        candidates: accuracy of each on the texts held back to choose.
        num_buckets: of the bag.
        vocab_size: of the decoder; None for a bag, as the following.
        context: likewise.
        depth: likewise.
        tokenizer_digest: likewise.
    """

    classes: tuple[str, ...]
    kept: str
    candidates: dict[str, float]
    num_buckets: int
    vocab_size: int | None = None
    context: int | None = None
    depth: int | None = None
    tokenizer_digest: str | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields, the goal and the schema's version."""
        return {"schema_version": SCHEMA_VERSION, "goal": "classes", **asdict(self)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ClassesSpec:
        """The inverse of :meth:`to_json`.

        Raises:
            CheckpointError: another schema version or goal, or fields that do not belong.
        """
        fields: dict[str, Any] = dict(value)
        head = fields.pop("schema_version", None), fields.pop("goal", None)
        if head != (SCHEMA_VERSION, "classes"):
            raise CheckpointError(f"text.json describes a classifier, schema version {SCHEMA_VERSION}", got=head)
        try:
            return cls(**{**fields, "classes": tuple(fields["classes"])})
        except (KeyError, TypeError) as error:
            raise CheckpointError("text.json describes a classifier", got=error) from error

    def shape(self) -> DecoderShape:
        """Of the decoder; the head is kept."""
        assert self.vocab_size is not None
        assert self.context is not None
        assert self.depth is not None
        return DecoderShape(vocab_size=self.vocab_size, context=self.context, depth=self.depth)

    def build(self) -> nn.Module:
        """The classifier with fresh weights, for trained ones to be loaded."""
        if self.kept == BAG:
            return BagClassifier(self.num_buckets, len(self.classes))
        return DecoderClassifier(self.shape(), len(self.classes))


@dataclass(frozen=True, kw_only=True)
class ClassifyApplication:
    """Labelled texts, split.

    Attributes:
        train: all to train on.
        choice: rows of ``train`` held back to choose between classifiers, int64: the source's own, or a tenth.
        test: of the final figures.
        is_held_out: whether ``test`` was split off by Volano.
        origin: where the texts come from, in words.
        faults: what could not be read.
        notices: what a person should know.
        seed: of everything.
    """

    train: LabelledTexts
    choice: np.ndarray
    test: LabelledTexts
    is_held_out: bool
    origin: str
    faults: tuple[Fault, ...]
    notices: tuple[str, ...]
    seed: int

    @functools.cached_property
    def fit(self) -> np.ndarray:
        """Rows of ``train`` that are not in ``choice``, int64."""
        return np.setdiff1d(np.arange(len(self.train)), self.choice)

    @functools.cached_property
    def num_buckets(self) -> int:
        """Of the bag."""
        return choose_buckets(len(self.train.classes))

    @functools.cached_property
    def hashed(self) -> HashedTexts:
        """The training texts as n-grams."""
        return hash_texts(self.train.texts, self.num_buckets)

    def rows(self, *, everything: bool) -> np.ndarray:
        """What is trained on: all, or what is not held back."""
        return np.arange(len(self.train)) if everything else self.fit

    def bag_task(self, *, everything: bool) -> Task:
        """The Task of the bag.

        Ten epochs of 256 texts, SGD with Nesterov momentum 0.9, lr 16 (inputs have norm 1, so curvature is small) with
        linear decay, and the L2 penalty of a logistic regression with C = 4. Measured on 8,000 descriptions of Debian
        packages in 10 sections, 2,000 held out (0.9 points of standard error): lr 2: 0.771, 8: 0.7985, 16: 0.8015,
        32: 0.803; AdamW with several rates and decays 0.746 to 0.7825: its steps of equal size for rare and common
        n-grams learn the rare ones by heart.
        """
        rows = self.rows(everything=everything)
        idf = inverse_frequencies(self.hashed.select(rows), self.num_buckets)
        batch_size = min(256, max(1, len(rows) // 8))
        return Task(
            name="text",
            model=functools.partial(BagClassifier, self.num_buckets, len(self.train.classes), idf),
            objective=BagObjective(),
            data=BagDataset(self.hashed.select(rows), self.train.labels[rows]),
            # Trained on everything, nothing is left to look at but the test set.
            valid=None if everything else BagDataset(self.hashed.select(self.choice), self.train.labels[self.choice]),
            collate=BagDataset.collate,
            optimizer=functools.partial(
                torch.optim.SGD, lr=16.0, momentum=0.9, nesterov=True, weight_decay=0.25 / len(rows)
            ),
            schedule=linear(),
            batch_size=batch_size,
            duration="10ep",
            evaluate_every="10ep",
            seed=self.seed,
        )

    def language_task(self, tokens: np.ndarray, shape: DecoderShape, num_steps: int) -> Task:
        """The Task in which a decoder reads the texts; ``tokens`` are ids uint16 with separators."""
        batch_size = max(1, min(_TOKENS_PER_STEP // shape.context, len(tokens) // shape.context - 1))
        num_tokens = batch_size * shape.context
        num_bytes = sum(len(text) for text in self.train.texts)
        recipe = choose_recipe(
            shape=shape, num_bytes=num_bytes, tokens_per_step=num_tokens,
            epochs=num_steps * num_tokens / len(tokens), num_steps=num_steps,
        )  # fmt: skip
        rates = {name: getattr(recipe, name) for name in ("matrix_lr", "embedding_lr", "head_lr", "weight_decay")}
        return Task(
            name="text",
            model=functools.partial(Decoder, shape),
            objective=NextToken(train_bytes_per_token=1.0, valid_bytes_per_token=1.0),
            data=TokenWindows(tokens, shape.context),
            augment=RandomOffsets(context=shape.context),
            optimizer=MuonAdamW,
            parameter_groups=functools.partial(parameter_groups, ns_steps=recipe.ns_steps, **rates),
            schedule=trapezoid(decay=0.6),
            batch_size=batch_size,
            duration=f"{num_steps}st",
            seed=self.seed,
        )

    def head_task(
        self, tokenizer: Tokenizer, shape: DecoderShape, weights: dict[str, Tensor], num_steps: int, *, everything: bool
    ) -> Task:
        """The Task in which a decoder that has read the texts learns the classes; its rates are half of those with
        which it read, so that it does not forget."""
        rows = self.rows(everything=everything)
        tokens = token_rows(self.train.texts, tokenizer, shape.context)
        weights = dict(sorted(weights.items()))  # a file gives them back in this order, and the description names them
        return Task(
            name="text",
            model=functools.partial(DecoderClassifier, shape, len(self.train.classes), weights),
            objective=ClassifierObjective(),
            data=token_arrays(tokens[rows], self.train.labels[rows]),
            valid=None if everything else token_arrays(tokens[self.choice], self.train.labels[self.choice]),
            optimizer=MuonAdamW,
            parameter_groups=functools.partial(classifier_parameter_groups, matrix_lr=0.01, rest_lr=0.005),
            schedule=linear(),
            batch_size=min(64, max(1, len(rows) // 8)),
            duration=f"{num_steps}st",
            evaluate_every=f"{num_steps}st",
            seed=self.seed,
        )


def read_classes(path: Path, *, seed: int) -> ClassifyApplication:
    """Reads labelled texts, and splits them where the source does not. Texts of a split val beside train and test are
    the ones to choose by, and trained on after the choice like all others.

    Raises:
        UsageError: the path does not exist or is no such source.
        DataError: it holds nothing that can be trained on.
    """
    sets = read_labelled_texts(path)
    train, test, notices = sets.train, sets.test, list(sets.notices)
    if test is None:
        kept, held = hold_out_rows(
            _digests(train.texts), train.labels.tolist(), train.classes, seed=seed, what="texts"
        )  # fmt: skip
        train, test = sets.train.select(kept), sets.train.select(held)
    if sets.valid is None:
        order = permutation(seed, 0, len(train))
        choice = np.sort(order[: max(1, round(_CHOICE_SHARE * len(train)))])
    else:
        choice = np.arange(len(train), len(train) + len(sets.valid))
        train = train.with_more(sets.valid)
        notices.append(f"the {len(choice):,} texts of split val are held back to choose, and trained on after that")
    return ClassifyApplication(
        train=train,
        choice=choice,
        test=test,
        is_held_out=sets.test is None,
        origin=sets.origin,
        faults=sets.faults,
        notices=tuple(notices),
        seed=seed,
    )


def predict_texts(
    model: nn.Module, spec: ClassesSpec, texts: Sequence[str], device: Device, tokenizer: Tokenizer | None
) -> Tensor:
    """Logits fp32 [N, classes] on the host; ``tokenizer`` is the run's, None for a bag."""
    model.eval()
    parts: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            batch = texts[start : start + _TEXTS_AT_ONCE]
            if spec.kept == BAG:
                hashed = hash_texts(batch, spec.num_buckets)
                inputs = hashed.padded(np.arange(len(batch)))
            else:
                assert tokenizer is not None
                inputs = (torch.from_numpy(token_rows(batch, tokenizer, spec.shape().context)),)
            parts.append(model(*device.move(inputs)).float().cpu())
    return torch.cat(parts)


def choose_context(texts: Sequence[str], tokenizer: Tokenizer) -> int:
    """A multiple of 16 tokens that holds nineteen of twenty texts, at most 128."""
    lengths = [len(tokenizer.encode(text[: 16 * MOST_CONTEXT])) + 1 for text in texts[:2000]]
    return int(min(MOST_CONTEXT, 16 * -(-np.quantile(lengths, 0.95) // 16)))


def _digests(texts: Sequence[str]) -> list[bytes]:
    return [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
