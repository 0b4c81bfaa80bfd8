"""The text application's options."""

from __future__ import annotations

from dataclasses import dataclass

from volano.apps.options import MOST_SEED, DeclaredOptions, Options, option
from volano.apps.shared_options import (
    from_option,
    held_out_by,
    num_evaluations,
    settle_from,
    target,
    target_columns,
)
from volano.errors import UsageError
from volano.pretrained.network_references import ALL, HEAD, LORA

MIN_DEPTH, MAX_DEPTH = 2, 24
TUNES = (HEAD, ALL, LORA)


@dataclass(frozen=True, kw_only=True)
class TextOptions(Options):
    """The options of training a language model."""

    path: str | None = option(
        None,
        "Files and folders of text, .jsonl or .parquet; without it, Python's standard library.",
        is_path=True,
    )
    classify: bool = option(False, "Train a classifier of labelled texts instead.", is_kept=False)
    target: str | None = target(before=None)
    target_columns: str | None = target_columns()
    from_: str | None = from_option("hf:NAME, a folder of transformers or, with `classify`, a run")
    tune: str | None = option(
        None,
        "Part of a pretrained network to train; default: depends on texts and time.",
        choices=TUNES,
    )
    depth: int | None = option(
        None,
        "Blocks of the model; default: chosen by time and text.",
        at_least=MIN_DEPTH,
        at_most=MAX_DEPTH,
    )
    context: int = option(256, "Tokens seen at once.", at_least=16, at_most=8192, unit="tokens")
    batch_size: int | None = option(None, "Windows of `context` tokens a step.", at_least=1)
    num_evaluations: int | None = num_evaluations()
    held_out_by: str = held_out_by()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target", "target_columns"):  # taken up by the classifier's options
            if getattr(self, name) is not None:
                raise UsageError(f"`{name}` must come with `classify`", got=getattr(self, name))
        settle_from(self, "depth")


@dataclass(frozen=True, kw_only=True)
class TextGenerationOptions(DeclaredOptions):
    """The options of writing text with a trained language model."""

    prompt: str = option("", "The text to continue; an empty one begins a document.")
    tokens: int = option(200, "Tokens to write, at most.", at_least=1)
    temperature: float = option(
        0.8, "Temperature of the draws; 0 takes the likeliest token.", at_least=0.0, at_most=100.0
    )
    top_k: int | None = option(None, "Draw among so many likeliest tokens.", at_least=1)
    top_p: float = option(
        1.0, "Draw among the likeliest tokens of this probability.", above=0.0, at_most=1.0
    )
    seed: int = option(
        0, "Seed of the draws; the same one writes the same.", at_least=0, at_most=MOST_SEED
    )
