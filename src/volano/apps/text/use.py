"""A trained language model: evaluate, generate."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np

from volano.apps.application import Table, TrainedModel
from volano.apps.options import DeclaredOptions, takes_options
from volano.apps.text.compressors import MOST_TRAINING_BYTES, CompressorFigures
from volano.apps.text.corpus import TRAIN_FILE, texts_to_evaluate
from volano.apps.text.generate import (
    TokenSampling,
    WrittenText,
    generate_ids,
    prompt_ids,
    stream_text,
)
from volano.apps.text.model_spec import TextSpec
from volano.apps.text.network import Decoder
from volano.apps.text.options import TextGenerationOptions
from volano.apps.text.scores import score_tokens, scores_in_words
from volano.apps.text.tokenizer import Tokenizer, load_tokenizer
from volano.apps.text.training import TextTraining
from volano.data import Fault, open_tokens, write_tokens
from volano.plan import Plan
from volano.running.checks import evaluation_name
from volano.training import WEIGHTS, RunFolder, build_and_load

# For what xz and bz2 reach on a text that is evaluated; a long training text takes them minutes.
_COMPRESSORS_SECONDS = 10.0


class TextModel(TrainedModel):
    """A language model, with its tokenizer."""

    generate_options: ClassVar[type[DeclaredOptions] | None] = TextGenerationOptions
    unreadable_in_words: ClassVar[str] = "not read, or in part"

    def __init__(
        self, folder: RunFolder, tokenizer: Tokenizer, module: Decoder, device: str | None = None
    ) -> None:
        super().__init__(folder, module, device)
        self.tokenizer, self.decoder = tokenizer, module

    @classmethod
    def open(cls, folder: RunFolder, device: str | None = None) -> Self:
        spec = TextSpec.of_run(folder)
        tokenizer = load_tokenizer(folder.path / "tokenizer.json", spec.tokenizer_digest)
        module = build_and_load(lambda: Decoder(spec.shape()), folder.path / WEIGHTS)
        return cls(folder, tokenizer, cast(Decoder, module), device)

    def evaluate(self, path: str | Path | None = None) -> dict[str, Any]:
        """Computes bits per byte, in fp32.

        Args:
            path: any source of text, all of which is evaluated; None is the run's own held-out
                text.

        Returns:
            See ``score_tokens``, with ``baselines``, what xz and bz2 reach on the same bytes after
            the training text. The same stands in the run's folder as ``eval-NAME.json``.
        """
        if path is None:
            name, unreadable = "test", []
            application = TextTraining.from_run(self.folder)
            result = application.held_out_scores(self.module, Plan.baseline(self.device.name))
        else:
            name = evaluation_name(path)
            result, unreadable = _score_source(self, Path(path))
        compressed = {
            f"bits_per_byte_{compressor}": value
            for compressor, value in result["baselines"].items()
        }
        figures = {"notices": (), **result, **compressed}
        return self._evaluated(name, result["origin"], figures, unreadable)

    def describe_evaluation(self, result: Mapping[str, Any]) -> list[str | Table]:
        return [
            result["origin"],
            *scores_in_words({**result, "num_test_bytes": result["num_bytes"]}, "bytes"),
        ]

    @takes_options(TextGenerationOptions)
    def generate(self, **options: Any) -> Generation:
        """Writes text behind a prompt, to be iterated over.

        Of a prompt longer than the context, the last ``context - 1`` tokens are read, which is
        said. Longer texts than the context are written by forgetting the older half of it each time
        that it is full. Writing ends before ``tokens`` at the end of a document.

        Args:
            options: see ``TextGenerationOptions``.
        """
        return Generation(self, TextGenerationOptions.of(options, "writing text"))


class Generation(WrittenText):
    """The text that a language model writes."""

    def __init__(self, model: TextModel, given: TextGenerationOptions) -> None:
        super().__init__(model.path, given)
        self._tokenizer, self._decoder = model.tokenizer, model.decoder
        self._sampling, context = TokenSampling.of(given), model.decoder.shape.context
        self._ids, dropped = prompt_ids(model.tokenizer, given.prompt, context)
        if dropped:
            self.notices.append(
                f"the prompt is longer than the context of {context} tokens: its first "
                f"{dropped:,} tokens are not read"
            )

    def pieces(self) -> Iterator[str]:
        return stream_text(self._tokenizer, self._counted())

    def _counted(self) -> Iterator[int]:
        for number in generate_ids(self._decoder, self._ids, self._num, self._sampling):
            self.num_written += 1
            yield number


def _score_source(model: TextModel, path: Path) -> tuple[dict[str, Any], list[Fault]]:
    source, texts, faults = texts_to_evaluate(path)
    with (
        CompressorFigures(
            _training_text(model),
            "".join(texts).encode(),
            num_training_bytes=TextSpec.of_run(model.folder).num_train_bytes,
            seconds=_COMPRESSORS_SECONDS,
        ) as figures,
        tempfile.TemporaryDirectory() as scratch,
    ):
        file = Path(scratch) / "tokens.npy"
        write_tokens(file, model.tokenizer.encode_documents(texts))
        tokens = np.asarray(open_tokens(file))
        scores = score_tokens(
            model.decoder, tokens, model.tokenizer, model.device, precision="fp32"
        )
        return {
            **scores,
            "baselines": figures.result(),
            "origin": source.origin,
            "notices": (*source.notices, *figures.notices),
        }, faults


def _training_text(model: TextModel) -> bytes:
    """The end of the training text: tokens lose nothing, so it is read off them."""
    train = open_tokens(model.path / TRAIN_FILE)
    content, stop = b"", len(train)
    while stop > 0 and len(content) < MOST_TRAINING_BYTES:
        start = max(0, stop - MOST_TRAINING_BYTES // 4)
        content, stop = model.tokenizer.decode(train[start:stop].tolist()) + content, start
    return content[-MOST_TRAINING_BYTES:]
