"""The options of classifying texts."""

from __future__ import annotations

from dataclasses import dataclass

from volano.apps.options import Options, option
from volano.apps.shared_options import (
    columns_of,
    from_option,
    held_out_by,
    settle_from,
    target,
    target_columns,
)
from volano.errors import UsageError
from volano.pretrained.network_references import ALL, HEAD

TUNES = (HEAD, ALL)


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(Options):
    """The options of training a classifier of texts: where they lie, how long, and the seed."""

    path: str | None = option(None, "Labelled texts: class folders or a table.", is_path=True)
    target: str | None = target()
    target_columns: str | None = target_columns()
    from_: str | None = from_option("hf:NAME, a folder of transformers or a run")
    tune: str | None = option(
        None,
        "Part of a pretrained encoder to train; default: depends on texts and time.",
        choices=TUNES,
    )
    held_out_by: str = held_out_by()
    epochs: float | None = option(
        None, "Passes over the training texts, instead of minutes, with an encoder.", above=0
    )
    batch_size: int | None = option(None, "Texts a step, with an encoder.", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is None:
            raise UsageError("`classify` needs a path of labelled texts", got="none")
        settle_from(self)
        for name in ("epochs", "batch_size"):
            if self.from_ is None and getattr(self, name) is not None:
                raise UsageError(
                    f"`{name}` must come with a pretrained encoder, if texts are classified",
                    got=getattr(self, name), remedy="Name one by `from_`, or give `minutes`",
                )  # fmt: skip
        columns_of(self.target_columns)
