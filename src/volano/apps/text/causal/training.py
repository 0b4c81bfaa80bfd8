"""Makes a Task from a path and a pretrained language model."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from volano.apps.application import Application
from volano.apps.options import Options, tried_around, tried_between
from volano.apps.text.corpus import part_reader
from volano.apps.text.options import TextOptions
from volano.data import Arrays, Fault
from volano.data.sources import find_texts, split_texts
from volano.errors import CheckpointError, DataError, UsageError
from volano.pretrained.causal_networks import CausalNetwork, load_causal_network
from volano.pretrained.network_references import ALL, HEAD, LORA, NetworkReference
from volano.pretrained.text_encoders import TOKENIZER, EncoderTokenizer
from volano.record.files import write_bytes
from volano.task import Loss, Task, cosine
from volano.training import RunFolder, load_tensors, save_tensors

CAUSAL_GOAL = "causal"
# Rates of the practice: peft's examples, Hugging Face's.
_RATES = {LORA: 2e-4, ALL: 2e-5}
_MOST_BATCH = 8
_MOST_VALID = 64
_FILLING = -1
# A run's own windows: what is held out of a text that has changed since may have been trained on.
WINDOWS = "windows.safetensors"


@dataclass(frozen=True, kw_only=True)
class CausalObjective:
    """The cross-entropy of each next token in windows of ids int32 [B, T + 1], where -1 is filling.

    Attributes:
        bytes_per_token: of the held-out text, for the metric.
    """

    bytes_per_token: float

    def __call__(self, model: nn.Module, batch: Any) -> Loss:
        """Implements ``Task.objective``."""
        ids = batch.long()
        targets = ids[:, 1:]
        logits = model(ids[:, :-1].clamp(min=0)).float()
        total = F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=_FILLING, reduction="sum"
        )
        count = (targets != _FILLING).sum()
        bits = total.detach() / count / (math.log(2) * self.bytes_per_token)
        return Loss(total=total, weight=count, metrics={"bits_per_byte": bits})


@dataclass(frozen=True, kw_only=True)
class CausalRecipe:
    """The numbers of one training.

    Attributes:
        batch_size: windows per step.
        lr: the learning rate of AdamW.
        weight_decay: its decay.
    """

    batch_size: int
    lr: float = tried_around(5.0)
    weight_decay: float = tried_between(0.0, 0.1)


@dataclass(frozen=True, kw_only=True)
class CausalTraining(Application):
    """The windows of a text and a pretrained language model to train on them.

    Attributes:
        network: the pretrained network.
        train: ids int32 [windows, context + 1].
        held: ids of the held-out text, the last window filled up with -1.
        num_held_bytes: UTF-8 bytes of the held-out text.
    """

    kind: ClassVar[str] = "text"
    options_type: ClassVar[type[Options]] = TextOptions
    final_metric: ClassVar[str] = "bits_per_byte"
    study_metric: ClassVar[tuple[str, str]] = ("bits_per_byte", "minimize")
    data_name: ClassVar[str] = "text"
    # A language model that knows the language forgets more than it learns in many passes (Hugging
    # Face: 3 to 5).
    most_epochs: ClassVar[float | None] = 5.0

    options: TextOptions
    network: CausalNetwork
    train: Tensor = field(repr=False)
    held: Tensor = field(repr=False)
    num_held_bytes: int
    origin: str
    faults: tuple[Fault, ...] = ()
    notices: tuple[str, ...] = ()

    @classmethod
    def read(cls, options: TextOptions, scratch: Path | None = None) -> Self:  # noqa: ARG003
        """Loads the network, and cuts the text into windows of its tokens."""
        if options.tune == HEAD:
            raise UsageError(
                "A language model must be tuned by lora or all", got="tune=head",
                remedy="Take lora, which trains few weights too",
            )  # fmt: skip
        network = _network(options)
        source = find_texts(None if options.path is None else Path(options.path))
        split = split_texts(source, seed=options.seed, by=options.held_out_by)
        context = min(options.context, network.tokenizer.most_tokens)
        parts = [part_reader(source, split, part=part) for part in (0, 1)]
        train, held_texts = _windows(network, parts[0](), context), list(parts[1]())
        train, held = train[(train != _FILLING).all(1)], _windows(network, held_texts, context)
        if (held[:, 1:] == _FILLING).all():
            raise DataError(
                "Some text must be held out", got=f"none of {source.origin}",
                remedy="Give more text",
            )  # fmt: skip
        if len(train) < 1:
            raise DataError(
                f"The training text must fill a window of {context} tokens", got=source.origin,
                remedy="Give more text, or a smaller `context`",
            )  # fmt: skip
        said = (
            () if context == options.context else (f"context={context}: the network takes no more",)
        )
        return cls(
            options=options,
            network=network,
            train=train,
            held=held,
            num_held_bytes=len("".join(held_texts).encode()),
            origin=source.origin,
            faults=split.faults,
            notices=(*source.notices, *split.notices, *network.notices, *said),
        )

    @classmethod
    def from_run(cls, folder: RunFolder) -> Self:
        """Reads a run's own windows, and its network; the text itself is no longer needed.

        Raises:
            CheckpointError: the windows are missing or damaged.
            UsageError: the network is no longer there.
        """
        options, kept = cls.options_of(folder), KeptWindows.of_run(folder)
        return cls(
            options=options,
            network=_network(options),
            train=kept.train,
            held=kept.held,
            num_held_bytes=kept.num_held_bytes,
            origin=kept.origin,
        )

    def write(self, folder: RunFolder, scratch: Path | None) -> None:  # noqa: ARG002 - of the contract
        """Writes description, tokenizer and windows."""
        folder.write_json("text.json", self.about())
        write_bytes(folder.path / TOKENIZER, self.network.tokenizer.content)
        save_tensors({"train": self.train, "held": self.held}, folder.path / WINDOWS)

    @property
    def tune(self) -> str:
        """The part that is trained: adapters, or all layers."""
        return self.options.tune or LORA

    @property
    def batch_size(self) -> int:
        """The windows per step."""
        wanted = self.options.batch_size or max(1, min(_MOST_BATCH, len(self.train) // 16))
        return min(wanted, len(self.train))

    def steps_in(self, epochs: float) -> int:
        return max(1, round(epochs * (len(self.train) // self.batch_size)))

    def for_study(self) -> Self:
        """Implements :meth:`Application.for_study`."""
        return self.with_options(tune=self.tune)

    def recipe_of(self, num_steps: int) -> CausalRecipe:  # noqa: ARG002 - the same for all lengths
        """The recipe of a run of so many steps."""
        return CausalRecipe(batch_size=self.batch_size, lr=_RATES[self.tune], weight_decay=0.0)

    def task(self, num_steps: int, recipe: CausalRecipe | None = None) -> Task:
        """The Task for a number of steps: AdamW, clipped at 1, cosine with a tenth of warm-up."""
        recipe = recipe or self.recipe_of(num_steps)
        return Task(
            name="text",
            model=functools.partial(self.network.tuned, self.tune),
            objective=CausalObjective(bytes_per_token=self.bytes_per_token),
            data=Arrays(self.train),
            valid=Arrays(self._looked_at()),
            optimizer=functools.partial(
                torch.optim.AdamW, lr=recipe.lr, weight_decay=recipe.weight_decay
            ),
            schedule=cosine(warmup=0.1),
            clip_norm=1.0,
            batch_size=min(recipe.batch_size, len(self.train)),
            duration=f"{num_steps}st",
            evaluate_every=f"{max(1, -(-num_steps // 5))}st",
            seed=self.options.seed,
        )

    @property
    def bytes_per_token(self) -> float:
        """The bytes per token of the held-out text."""
        return self.num_held_bytes / int((self.held[:, 1:] != _FILLING).sum())

    def goal(self) -> dict[str, Any]:
        return {"goal": CAUSAL_GOAL}

    def about(self) -> dict[str, Any]:
        """Returns what ``text.json`` keeps: enough to build and feed the model again."""
        tokenizer = self.network.tokenizer
        return {
            "schema_version": 1,
            "goal": CAUSAL_GOAL,
            "reference": self.network.reference,
            "tune": self.tune,
            "config": self.network.config,
            "context": self.train.shape[1] - 1,
            "most_tokens": tokenizer.most_tokens,
            "padding_id": tokenizer.padding_id,
            "end_id": self.network.end_id,
            "digest": self.network.digest,
            "num_held_bytes": self.num_held_bytes,
            "origin": self.origin,
        }

    def _looked_at(self) -> Tensor:
        rows = torch.linspace(0, len(self.held) - 1, min(len(self.held), _MOST_VALID))
        return self.held[rows.round().long()].contiguous()


@dataclass(frozen=True, kw_only=True)
class KeptWindows:
    """The windows of a run as its folder keeps them; see :class:`CausalTraining`."""

    train: Tensor
    held: Tensor
    num_held_bytes: int
    origin: str

    @classmethod
    def of_run(cls, folder: RunFolder) -> KeptWindows:
        """Reads those of a run.

        Raises:
            CheckpointError: they are missing or damaged.
        """
        about = folder.read_json("text.json")
        try:
            found = load_tensors(folder.path / WINDOWS)
            train, held, num = found["train"], found["held"], int(about["num_held_bytes"])
            if not train.ndim == held.ndim == 2 or {train.dtype, held.dtype} != {torch.int32}:
                raise ValueError(f"windows of {train.dtype} {list(train.shape)}")
            least = min(int(ids.min()) for ids in (train, held))
            highest = max(int(ids.max()) for ids in (train, held))
            is_known = least >= _FILLING and 0 <= highest < int(about["config"]["vocab_size"])
            if not is_known or num < 1:
                raise ValueError(f"ids from {least} to {highest}, of {num} bytes")
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"A run must hold the windows of its text in {WINDOWS}",
                got=f"{folder.path}: {type(error).__name__}: {error}",
            ) from error
        return cls(train=train, held=held, num_held_bytes=num, origin=str(about.get("origin")))


def _network(options: TextOptions) -> CausalNetwork:
    assert options.from_ is not None
    found = NetworkReference.parse(options.from_)
    if found.kind != "transformers":
        is_own = found.kind == "run" and (Path(found.name) / WINDOWS).is_file()
        raise UsageError(
            "A language model to begin with must be one of transformers: hf:NAME or its folder",
            got=options.from_,
            remedy="Export it to hf, and name the folder that is written" if is_own else None,
        )
    return load_causal_network(found.name, options.from_)


def _windows(network: CausalNetwork, texts: Iterable[str], context: int) -> Tensor:
    return windows_of(texts, network.tokenizer, network.end_id, context)


def windows_of(
    texts: Iterable[str], tokenizer: EncoderTokenizer, end_id: int | None, context: int
) -> Tensor:
    """Returns windows int32 [n, context + 1] that share a token with the next one, so that each
    token but the first is predicted once; the last is filled up with -1. ``end_id``: the id behind
    each text."""
    end = [] if end_id is None else [end_id]
    ids = [number for text in texts for number in (*tokenizer.ids_of(text), *end)]
    num = max(1, -(-(len(ids) - 1) // context))
    filled = torch.full((num * context + 1,), _FILLING, dtype=torch.int32)
    filled[: len(ids)] = torch.tensor(ids, dtype=torch.int32)
    return filled.unfold(0, context + 1, context).contiguous()
