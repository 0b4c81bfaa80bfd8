"""A decoder that reads the texts before it learns their classes, and as a run's folder keeps it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError
from torch import Tensor

from volano.apps.text.classify.classifier import DecoderClassifier, classifier_parameter_groups
from volano.apps.text.classify.model_spec import ClassesSpec
from volano.apps.text.network import Decoder, DecoderShape, parameter_groups
from volano.apps.text.objective import NextToken, RandomOffsets
from volano.apps.text.recipe import choose_recipe
from volano.apps.text.tokenizer import Tokenizer, load_tokenizer
from volano.data import Arrays, TokenWindows
from volano.errors import CheckpointError
from volano.record.files import write_bytes
from volano.task import Task, linear, trapezoid
from volano.training import MuonAdamW, RunFolder, load_tensors, save_tensors

PRETRAINED = "pretrained.safetensors"
_TOKENIZER = "tokenizer.json"
_TOKENS_PER_STEP = 2048


def reading_task(
    tokens: np.ndarray, shape: DecoderShape, *, num_bytes: int, num_steps: int, seed: int
) -> Task:
    """The Task in which a decoder reads the texts; ``tokens`` are ids uint16 with separators."""
    batch_size = max(1, min(_TOKENS_PER_STEP // shape.context, len(tokens) // shape.context - 1))
    num_tokens = batch_size * shape.context
    recipe = choose_recipe(
        shape=shape, num_bytes=num_bytes, tokens_per_step=num_tokens,
        epochs=num_steps * num_tokens / len(tokens), num_steps=num_steps,
    )  # fmt: skip
    rates = {
        name: getattr(recipe, name)
        for name in ("matrix_lr", "embedding_lr", "head_lr", "weight_decay")
    }
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
        seed=seed,
    )


@dataclass(frozen=True, kw_only=True)
class ReadHead:
    """A decoder that has read the texts, for its head to be trained."""

    tokenizer: Tokenizer
    shape: DecoderShape
    weights: dict[str, Tensor]

    @classmethod
    def load(cls, folder: RunFolder, spec: ClassesSpec) -> ReadHead | None:
        """Loads that of a run; None if its bag was kept.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        if spec.tokenizer_digest is None:
            return None
        tokenizer = load_tokenizer(folder.path / _TOKENIZER, spec.tokenizer_digest)
        try:
            weights = load_tensors(folder.path / PRETRAINED)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{PRETRAINED} of a run must be readable", got=f"{folder.path}: {error}"
            ) from error
        return cls(tokenizer=tokenizer, shape=spec.shape(), weights=weights)

    def learning_task(
        self, objective: Any, data: Arrays, valid: Arrays | None, *, num_outputs: int,
        num_steps: int, seed: int,
    ) -> Task:  # fmt: skip
        """The Task in which it learns from tokens what is wanted of them; its rates are half of
        those with which it read, so that it does not forget."""
        # A file gives them back in this order, and the description names them.
        weights = dict(sorted(self.weights.items()))
        return Task(
            name="text",
            model=functools.partial(DecoderClassifier, self.shape, num_outputs, weights),
            objective=objective,
            data=data,
            valid=valid,
            optimizer=MuonAdamW,
            parameter_groups=functools.partial(
                classifier_parameter_groups, matrix_lr=0.01, rest_lr=0.005
            ),
            schedule=linear(),
            batch_size=min(64, max(1, len(data) // 8)),
            duration=f"{num_steps}st",
            evaluate_every=f"{num_steps}st",
            seed=seed,
        )

    def save(self, folder: RunFolder) -> None:
        """Writes the tokenizer and the weights into a run's folder."""
        write_bytes(folder.path / _TOKENIZER, self.tokenizer.to_bytes())
        save_tensors(self.weights, folder.path / PRETRAINED)
