"""Chooses which part of a pretrained network is trained, from the examples and the time, with a
reason."""

from __future__ import annotations

from dataclasses import dataclass

from volano.pretrained.network_references import ALL, HEAD

# Below so many examples a class, rates for all layers fit noise: a linear head is the practice
# (SetFit, AutoGluon).
_LEAST_A_CLASS = 16
# Passes over the examples below which tuning all layers is not begun.
_LEAST_EPOCHS = 4.0
# A training step of all layers costs about so many forward passes: forward, and the gradients of
# activations and weights.
STEP_IN_PASSES = 3.5
# Of the time, what training may take (see running/time_schedule.py).
_TRAINING_SHARE = 0.65
# From so many examples on a network of one's own is worth a comparison.
_MANY = 50_000


@dataclass(frozen=True, kw_only=True)
class TuneChoice:
    """The part of a network that is trained, and why."""

    tune: str
    reason: str


def choose_tune(
    asked: str | None,
    *,
    num_examples: int,
    num_classes: int,
    pass_seconds: float,
    seconds: float | None,
    epochs: float | None = None,
) -> TuneChoice:
    """Chooses between the head and all layers.

    Args:
        asked: what a person asked for.
        num_examples: the number of training examples.
        num_classes: the number of classes.
        pass_seconds: seconds of a forward pass over all of them.
        seconds: seconds that are left for the training and its test; None with ``epochs``.
        epochs: the passes that were asked for.
    """
    if asked is not None:
        return TuneChoice(tune=asked, reason=f"tune={asked}: as asked")
    a_class = num_examples / num_classes
    if a_class < _LEAST_A_CLASS:
        few = f"{a_class:.0f} examples a class are too few to train all layers"
        return TuneChoice(tune=HEAD, reason=f"tune=head: {few} (from {_LEAST_A_CLASS} on)")
    one = STEP_IN_PASSES * pass_seconds
    found = epochs if seconds is None else max(0.0, _TRAINING_SHARE * seconds / one)
    said = f"about {one:.0f} s a pass of all layers, so there is time for {found or 0:.1f}"
    said = said if epochs is None else f"{epochs:g} epochs were asked for"
    many = "; from nothing may do as well with so many examples" if num_examples >= _MANY else ""
    if (found or 0.0) < _LEAST_EPOCHS:
        return TuneChoice(
            tune=HEAD, reason=f"tune=head: {said} (all layers from {_LEAST_EPOCHS:g} on)"
        )
    return TuneChoice(
        tune=ALL,
        reason=f"tune=all: {said}; the head is solved first, then all layers are trained, the "
        f"first ones at a tenth of the last ones' rate{many}",
    )
