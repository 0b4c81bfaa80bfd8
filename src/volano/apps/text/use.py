"""What is done with a run of a language model: eval and generate."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from volano.apps.text.compressors import MOST_TRAINING_BYTES, CompressorFigures
from volano.apps.text.corpus import TRAIN_FILE
from volano.apps.text.generate import TokenSampling, generate_ids, prompt_ids, stream_text
from volano.apps.text.model_spec import TextSpec
from volano.apps.text.network import Decoder
from volano.apps.text.scores import score_tokens
from volano.apps.text.tokenizer import Tokenizer, load_tokenizer
from volano.apps.text.train import application_of, held_out_scores
from volano.data import Fault, open_tokens, write_tokens
from volano.data.sources import find_texts
from volano.device import Device
from volano.errors import DataError, UsageError
from volano.plan import Plan
from volano.running.checks import check_ended, evaluation_name
from volano.running.train import kind_of
from volano.training import RunFolder, load_weights

DEFAULT_TOKENS = 200


def eval_text(path: str | Path, texts: str | Path | None = None, *, device: str | None = None) -> dict[str, Any]:
    """Bits per byte of a run's language model, in fp32.

    Args:
        path: the run's folder.
        texts: any source of text, all of which is evaluated; None is the run's own held-out text.
        device: as torch writes it.

    Returns:
        See ``score_tokens``, with ``baselines``, what xz and bz2 reach on the same bytes after the training text. The
        same stands in the run's folder as ``eval-NAME.json``.
    """
    folder, tokenizer, model = _open(path)
    place = Device(device)
    model.to(place.torch_device)
    if texts is None:
        name, unreadable = "test", []
        result = held_out_scores(model, application_of(folder), place, Plan.baseline(place.name))
    else:
        name = evaluation_name(texts)
        result, unreadable = _score_source(folder, tokenizer, model, Path(texts), place)
    result = {"run": str(folder.path), "notices": (), **result, "unreadable": [asdict(fault) for fault in unreadable]}
    result |= {f"bits_per_byte_{compressor}": value for compressor, value in result["baselines"].items()}
    folder.write_json(f"eval-{name}.json", result)
    return result


class Generation:
    """Text that a run's model writes, piece by piece: iterate over it once, then read ``figures``.

    Attributes:
        run: the run's folder.
        prompt: as given.
        notices: what a person should know before the first piece.
        text: what has been written so far, without the prompt.
    """

    def __init__(self, run: Path, tokenizer: Tokenizer, model: Decoder, prompt: str, num: int, sampling: TokenSampling):
        self.run, self.prompt, self.text = run, prompt, ""
        self.notices: list[str] = []
        self._tokenizer, self._model, self._num, self._sampling = tokenizer, model, num, sampling
        self._num_written, self._seconds = 0, 0.0
        self._ids, dropped = prompt_ids(tokenizer, prompt, model.shape.context)
        if dropped:
            self.notices.append(
                f"the prompt is longer than the context of {model.shape.context} tokens: its first {dropped:,} tokens "
                "are not read"
            )

    def __iter__(self) -> Iterator[str]:
        start = time.perf_counter()
        for piece in stream_text(self._tokenizer, self._counted()):
            self._seconds = time.perf_counter() - start
            self.text += piece
            yield piece

    def figures(self) -> dict[str, Any]:
        """All of it, for ``--json``; ``tokens_per_second`` counts the reading of the prompt too."""
        return {
            "run": str(self.run),
            "prompt": self.prompt,
            "text": self.text,
            "num_tokens": self._num_written,
            "is_ended": self._num_written < self._num,
            "seconds": round(self._seconds, 4),
            "tokens_per_second": round(self._num_written / max(self._seconds, 1e-9), 1),
            "notices": self.notices,
        }

    def _counted(self) -> Iterator[int]:
        for number in generate_ids(self._model, self._ids, self._num, self._sampling):
            self._num_written += 1
            yield number


def generate_text(
    path: str | Path,
    prompt: str = "",
    *,
    tokens: int = DEFAULT_TOKENS,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    device: str | None = None,
) -> Generation:
    """Text that a run's language model writes behind a prompt, to be iterated over.

    Of a prompt longer than the context, the last ``context - 1`` tokens are read, which is said. Longer texts than the
    context are written by forgetting the older half of it each time that it is full. Writing ends before ``tokens`` at
    the end of a document.

    Args:
        path: the run's folder.
        prompt: to go on from; empty begins a document.
        tokens: to write, at most.
        temperature, top_k, top_p, seed: see ``TokenSampling``.
        device: as torch writes it; None is the CPU, which is faster for one token at a time of a small model.

    Raises:
        UsageError: a value out of its range, or no run of a language model.
        CheckpointError: a file of the run is missing, or belongs to another run.
    """
    sampling = TokenSampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    if tokens < 1:
        raise UsageError("--tokens is a whole number above 0", got=tokens)
    folder, tokenizer, model = _open(path)
    model.to(Device(device or "cpu").torch_device)
    return Generation(folder.path, tokenizer, model, prompt, tokens, sampling)


def _open(path: str | Path) -> tuple[RunFolder, Tokenizer, Decoder]:
    folder = RunFolder.open(path)
    if kind_of(path) != "text":
        raise UsageError("This is for runs of the text application", got=str(path))
    record = folder.read_json("text.json")
    if record.get("goal") == "classes":
        raise UsageError("This is for runs of a language model", got=f"{path}, which tells classes apart")
    spec = TextSpec.from_json(record)
    check_ended(folder)
    tokenizer = load_tokenizer(folder.path / "tokenizer.json", spec.tokenizer_digest)
    model = Decoder(spec.shape())
    load_weights(model, folder.path / "model.safetensors")
    return folder, tokenizer, model.eval()


def _score_source(
    folder: RunFolder, tokenizer: Tokenizer, model: Decoder, path: Path, device: Device
) -> tuple[dict[str, Any], list[Fault]]:
    source, faults = find_texts(path), []
    texts = [document.text for document in source.read(faults)]
    if not texts:
        reason = f": {faults[0].reason}" if faults else ""
        raise DataError("There is text to evaluate on", got=f"none in {source.origin}{reason}")
    with (
        CompressorFigures(_training_text(folder, tokenizer), "".join(texts).encode()) as figures,
        tempfile.TemporaryDirectory() as scratch,
    ):
        file = Path(scratch) / "tokens.npy"
        write_tokens(file, tokenizer.encode_documents(texts))
        scores = score_tokens(model, np.asarray(open_tokens(file)), tokenizer, device, precision="fp32")
        return {**scores, "baselines": figures.result(), "origin": source.origin, "notices": source.notices}, faults


def _training_text(folder: RunFolder, tokenizer: Tokenizer) -> bytes:
    """The end of the training text: tokens lose nothing, so it is read off them."""
    train = open_tokens(folder.path / TRAIN_FILE)
    content, stop = b"", len(train)
    while stop > 0 and len(content) < MOST_TRAINING_BYTES:
        start = max(0, stop - MOST_TRAINING_BYTES // 4)
        content, stop = tokenizer.decode(train[start:stop].tolist()) + content, start
    return content[-MOST_TRAINING_BYTES:]
