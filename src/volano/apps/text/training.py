"""Makes a Task from a path and options: a language model of a person's text."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import nn

from volano.apps.application import Application, Fitted
from volano.apps.options import Options
from volano.apps.text.corpus import HELD_FILE, TRAIN_FILE, Corpus, prepare_corpus
from volano.apps.text.generate import TextPreview
from volano.apps.text.model_spec import LANGUAGE_GOAL, TextSpec
from volano.apps.text.network import Decoder, parameter_groups
from volano.apps.text.objective import NextToken, RandomOffsets, counted
from volano.apps.text.options import TextOptions
from volano.apps.text.recipe import (
    MOST_EPOCHS,
    PROBE_DEPTH,
    TextRecipe,
    choose_depth,
    choose_recipe,
    choose_tokens_per_step,
)
from volano.apps.text.scores import score_tokens
from volano.apps.text.tokenizer import Tokenizer, load_tokenizer
from volano.data import Arrays, Fault, TokenWindows, fault_notices, open_tokens, scoring_windows
from volano.data.sources import find_texts
from volano.device import Device
from volano.errors import DataError
from volano.plan import Plan
from volano.record.format import count_text
from volano.running.time_limit import TimeLimit
from volano.task import Task, trapezoid
from volano.training import MuonAdamW, RunFolder, settings_of

# Windows looked at during the run; the final figure is over the whole held-out text.
_NUM_VALID_WINDOWS = 48
_PROMPT_TOKENS = 16
# Of the minutes, for what xz and bz2 reach on the same text.
_COMPRESSORS_SHARE = 0.05
_LEAST_CONTEXT = 16
_UNREADABLE = "not read, or in part"
_Training = TypeVar("_Training", bound="TextTraining")


@dataclass(frozen=True, kw_only=True)
class TextTraining(Application):
    """The tokens and a language model to train on them; :meth:`task` makes the Task for a number of
    steps.

    Attributes:
        options: the options with ``depth`` and ``batch_size`` resolved.
        spec: the description of the model.
        tokenizer: the tokenizer of the tokens.
        train: ids uint16 [N] to train on.
        held: ids held out.
    """

    kind: ClassVar[str] = "text"
    options_type: ClassVar[type[Options]] = TextOptions
    sample_minutes: ClassVar[float] = 1.0
    final_metric: ClassVar[str] = "bits_per_byte"
    data_name: ClassVar[str] = "text"
    generate_device: ClassVar[str | None] = "cpu"  # faster for one token at a time of a small model
    needs_scratch: ClassVar[bool] = True

    options: TextOptions
    spec: TextSpec
    tokenizer: Tokenizer
    train: np.ndarray
    held: np.ndarray
    faults: tuple[Fault, ...] = ()
    notices: tuple[str, ...] = ()

    @classmethod
    def read(cls, options: TextOptions, scratch: Path | None = None) -> Self:
        """Reads the text, learns its tokenizer, and writes its tokens into ``scratch``.

        A text that is too short for the context gets a smaller one, which is said.
        """
        assert scratch is not None
        source = find_texts(None if options.path is None else Path(options.path))
        corpus = prepare_corpus(
            source,
            scratch,
            seed=options.seed,
            by=options.held_out_by,
            # A run that is as long as it takes has time for the whole.
            compressors_seconds=None
            if options.epochs is not None
            else _COMPRESSORS_SHARE * 60 * cls.minutes_of(options),
        )
        context, notices = _fitting_context(options.context, corpus)
        spec = TextSpec(
            vocab_size=corpus.tokenizer.vocab_size,
            context=context,
            depth=options.depth or PROBE_DEPTH,
            tokenizer_digest=corpus.tokenizer.digest(),
            num_train_bytes=corpus.num_train_bytes,
            num_train_tokens=len(corpus.train),
            num_held_bytes=corpus.num_held_bytes,
            num_held_tokens=len(corpus.held),
            baselines=corpus.baselines,
            origin=corpus.origin,
        )
        num_windows = len(TokenWindows(corpus.train, context))
        if options.batch_size is not None and options.batch_size > num_windows:
            notices.append(
                f"batch_size={num_windows}: there are no more windows of {context} tokens to "
                "train on"
            )
        return cls(
            options=options,
            spec=spec,
            tokenizer=corpus.tokenizer,
            train=corpus.train,
            held=corpus.held,
            faults=corpus.faults,
            notices=(*corpus.notices, *fault_notices(corpus.faults, _UNREADABLE), *notices),
        )

    @classmethod
    def from_run(cls, folder: RunFolder) -> Self:
        """Reads a run's files; the text itself is no longer needed.

        Raises:
            CheckpointError: a file is missing or damaged, or the tokenizer is another one.
        """
        options, spec = cls.options_of(folder), TextSpec.of_run(folder)
        return cls(
            options=options,
            spec=spec,
            tokenizer=load_tokenizer(folder.path / "tokenizer.json", spec.tokenizer_digest),
            train=open_tokens(folder.path / TRAIN_FILE),
            held=open_tokens(folder.path / HELD_FILE),
        )

    @functools.cached_property
    def windows(self) -> TokenWindows:
        """The windows that are trained on."""
        return TokenWindows(self.train, self.spec.context)

    @property
    def batch_size(self) -> int:
        """The windows per step; never more than there are."""
        return min(self.options.batch_size or 1, len(self.windows))

    @property
    def tokens_per_step(self) -> int:
        """The tokens that a step predicts."""
        return self.batch_size * self.spec.context

    def steps_in(self, epochs: float) -> int:
        return max(1, round(epochs * (len(self.windows) // self.batch_size)))

    def recipe_of(self, num_steps: int) -> TextRecipe:
        epochs = num_steps * self.tokens_per_step / len(self.train)
        return choose_recipe(
            shape=self.spec.shape(),
            num_bytes=self.spec.num_train_bytes,
            tokens_per_step=self.tokens_per_step,
            epochs=epochs,
            num_steps=num_steps,
        )

    def with_shape(self, *, depth: int, batch_size: int) -> Self:
        """The same with another depth and batch."""
        spec = dataclasses.replace(self.spec, depth=depth)
        return dataclasses.replace(self.with_options(depth=depth, batch_size=batch_size), spec=spec)

    def task(self, num_steps: int, recipe: TextRecipe | None = None) -> Task:
        recipe = recipe or self.recipe_of(num_steps)
        ids, first, bytes_per_token = self._valid()
        return Task(
            name="text",
            model=functools.partial(Decoder, self.spec.shape(recipe.dropout)),
            objective=NextToken(
                train_bytes_per_token=self.spec.num_train_bytes / len(self.train),
                valid_bytes_per_token=bytes_per_token,
            ),
            data=self.windows,
            valid=Arrays((ids, first)),
            augment=RandomOffsets(context=self.spec.context),
            preview=self._preview(),
            optimizer=MuonAdamW,
            parameter_groups=functools.partial(
                parameter_groups,
                matrix_lr=recipe.matrix_lr,
                embedding_lr=recipe.embedding_lr,
                head_lr=recipe.head_lr,
                weight_decay=recipe.weight_decay,
                ns_steps=recipe.ns_steps,
            ),
            schedule=trapezoid(decay=0.6),
            ema_decay=recipe.ema_decay,
            batch_size=self.batch_size,
            duration=f"{num_steps}st",
            evaluate_every=self.evaluation_interval(num_steps, recipe),
            seed=self.options.seed,
        )

    @property
    def origin(self) -> str:
        """The origin of the text, in words."""
        return self.spec.origin

    def goal(self) -> dict[str, Any]:
        return {"goal": LANGUAGE_GOAL}

    def fit_epochs(self, limit: TimeLimit, epochs: float) -> Fitted:
        """Finds the depth, the batch and the plan for a number of passes over the text."""
        num_tokens = epochs * len(self.train)
        fitted = super(
            TextTraining, shaped(self, limit.planning.place, flops=None, num_tokens=num_tokens)
        ).fit_epochs(limit, epochs)
        application: Any = fitted.application
        return dataclasses.replace(
            fitted, reasons=application.reasons(fitted.num_steps, f"{epochs:g} epochs as asked")
        )

    def reasons(self, num_steps: int, length: str) -> tuple[str, ...]:
        """Puts depth, batch, number of steps and regime into words; ``length``: why so many
        steps."""
        shape = self.spec.shape()
        size = f"{count_text(num_steps, 'step')} of {self.tokens_per_step:,} tokens"
        return (
            f"depth {shape.depth} (width {shape.width}), {size}: {length}",
            f"regime: {self.recipe_of(num_steps).regime}",
        )

    def fit_trial(
        self, seconds: float, seconds_per_step: Callable[[Task], float], device: Device
    ) -> tuple[Self, float]:
        """Chooses depth and batch by the application's own rules for a training of so many
        seconds."""
        probe = shaped(self, device, flops=1.0, num_tokens=1e6, depth=self.spec.depth)
        num_tokens = seconds / seconds_per_step(probe.task(1000)) * probe.tokens_per_step
        flops = num_tokens * probe.spec.shape().flops_per_token
        sized = shaped(
            self, device, flops=flops, num_tokens=min(num_tokens, MOST_EPOCHS * len(self.train))
        )
        return sized, seconds_per_step(sized.task(1000))

    def held_out_scores(self, model: nn.Module, plan: Plan) -> dict[str, Any]:
        """Returns what ``score_tokens`` does; with ``baselines``, what xz and bz2 reach on the same
        bytes after the training text."""
        assert isinstance(model, Decoder)
        device = Device(plan.device)
        with settings_of(plan, device):
            scores = score_tokens(
                model, self.held, self.tokenizer, device, precision=plan.precision
            )
        assert scores["num_bytes"] == self.spec.num_held_bytes
        return {
            **scores,
            "baselines": self.spec.baselines,
            "origin": f"{self.spec.origin}, held out",
        }

    def _valid(self) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Returns evenly spaced windows of the held-out text, and the bytes per token of the
        targets that count in them."""
        context = self.spec.context
        ids, first = scoring_windows(self.held, context, context)
        rows = (
            torch.linspace(0, len(ids) - 1, min(len(ids), _NUM_VALID_WINDOWS))
            .round()
            .long()
            .unique()
        )
        ids, first = ids[rows].contiguous(), first[rows].contiguous()
        targets = ids[:, 1:][counted(ids, first)]
        num_bytes = int(self.tokenizer.num_bytes_of[targets.numpy()].sum())
        return ids, first, num_bytes / max(1, len(targets))

    def _preview(self) -> Callable[[Any], dict[str, str]]:
        prompt = self.tokenizer.decode(self.held[1 : 1 + _PROMPT_TOKENS].tolist()).decode(
            errors="ignore"
        )
        return TextPreview(tokenizer=self.tokenizer, prompt=prompt)


def _fitting_context(wanted: int, corpus: Corpus) -> tuple[int, list[str]]:
    """The context, halved until the training text fills four windows of twice its length."""
    num_tokens = len(corpus.train)
    context = wanted
    while context > _LEAST_CONTEXT and num_tokens < 8 * context:
        context //= 2
    if num_tokens < 4 * context:
        raise DataError(
            f"The training text must have at least {4 * _LEAST_CONTEXT} tokens",
            got=f"{num_tokens:,} tokens ({corpus.num_train_bytes:,} bytes) in {corpus.origin}",
            remedy="Give more text",
        )
    if context == wanted:
        return context, []
    return context, [f"context={context}: the training text has only {num_tokens:,} tokens"]


def shaped(
    application: _Training,
    place: Device,
    *,
    flops: float | None,
    num_tokens: float,
    depth: int | None = None,
) -> _Training:
    """The application with depth and batch chosen if the options leave them open. ``flops`` is
    what the training may cost; None is what the probe's depth would cost over ``num_tokens``."""
    options, spec = application.options, application.spec
    if flops is None:
        flops = num_tokens * spec.shape().flops_per_token
    depth = options.depth or depth or choose_depth(
        flops=flops, num_bytes=spec.num_train_bytes, vocab_size=spec.vocab_size,
        context=spec.context
    )  # fmt: skip
    batch_size = options.batch_size
    if batch_size is None:
        width = application.with_shape(depth=depth, batch_size=1).spec.shape().width
        tokens = choose_tokens_per_step(num_tokens=num_tokens, width=width, is_cpu=place.is_cpu)
        # A small text still gives eight steps an epoch.
        batch_size = max(1, min(tokens // spec.context, len(application.windows) // 8))
    return application.with_shape(depth=depth, batch_size=min(batch_size, len(application.windows)))
