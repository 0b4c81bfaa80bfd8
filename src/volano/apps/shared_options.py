"""The options that several applications have, each declared once, and the checks that go with them.
Imports no torch."""

from __future__ import annotations

from typing import Any

from volano.apps.options import option
from volano.errors import UsageError
from volano.pretrained.network_references import absolute_reference


def fit() -> Any:
    """Returns the field of an option that says how pictures that are no squares become some."""
    return option(
        None,
        "How pictures become square: cut to the centre, pad with black, or squeeze; default: cut, "
        "or as suits a pretrained network.",
        choices=("cut", "pad", "squeeze"),
        before="cut",
    )


def held_out_by() -> Any:
    """Returns the field of an option that says by which rule examples were held out."""
    return option(
        "content",
        "What decides whether an example is held out.",
        choices=("content", "place"),
        is_resolved=True,
        before="place",
    )


def target(before: str | None = "classes") -> Any:
    """Returns the field of an option that says what is predicted of labelled examples.

    ``before``: what runs had that were written without it.
    """
    return option(
        None,
        "What to predict: one class, several labels, or numbers; default: as the table shows.",
        choices=("classes", "labels", "numbers"),
        before=before,
    )


def target_columns() -> Any:
    """Returns the field of an option that names the columns of a table that hold targets."""
    return option(
        None, "Columns of the table to predict, with commas between: price or left,right."
    )


def columns_of(text: str | None) -> tuple[str, ...]:
    """Returns the names in a text of ``target_columns``.

    Raises:
        UsageError: one is empty, or stands there twice.
    """
    names = () if text is None else tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(
            "`target_columns` must name different columns, with a comma between them",
            got=repr(text),
        )
    return names


def from_option(forms: str) -> Any:
    """Returns the field of an option that names a pretrained network; ``forms``: how."""
    return option(
        None, f"Pretrained network to begin with: {forms}.", flag="--from", may_be_path=True
    )


def batch_in_words(batch_size: int | None, num_train: int, what: str) -> tuple[str, ...]:
    """Returns a notice of a batch that was asked for and is larger than the training set."""
    if batch_size is None or batch_size <= num_train:
        return ()
    return (f"batch_size={num_train}: there are no more {what} to train on",)


def num_evaluations() -> Any:
    """Returns the field of an option that says how often a run is evaluated."""
    return option(None, "Evaluations during the run at most.", at_least=1, is_resolved=True)


def settle_from(options: Any, *own: str) -> None:
    """Makes the folder or file that ``from_`` names absolute: a run is resumed from anywhere.

    Args:
        options: options with ``from_``, and perhaps ``tune``.
        own: names of options that choose among Volano's own networks.

    Raises:
        UsageError: a part of a network is named and no pretrained network is, or both that and one
            of Volano's own.
    """
    if options.from_ is None:
        if getattr(options, "tune", None) is not None:
            raise UsageError(
                "`tune` must come with a pretrained network", got=options.tune,
                remedy="Name one by `from_`",
            )  # fmt: skip
        return
    object.__setattr__(options, "from_", absolute_reference(options.from_))
    for name in own:
        if getattr(options, name) is not None:
            raise UsageError(
                f"`{name}` can only choose among Volano's networks",
                got=f"`{name}` together with `from_`",
            )
