"""The share of each batch on which the candidates of a run are timed: a part, if a run on a CPU is
short."""

from __future__ import annotations

from volano.task import Batch, num_examples, split

# A run of so many steps times candidates on whole batches; one of fewer, on this share of each, for
# each step of the run, at most that: three steps each of two candidates then take 0.6 to 1.5 % of
# the run.
_WHOLE_BATCH_STEPS, _SHARE_OF_STEP, _MOST_OF_STEP = 300, 1e-3, 2.5e-3
# A type that multiplies so many times as fast is worth as many times that, up to this, in a run of
# so many steps: what two candidates take of a hundred, a type four times as fast wins back in ten.
# A run of fewer would pay more for their sessions.
_MOST_SPEED, _LEAST_STEPS_OF_NARROW = 4.0, 100
# The share of the run after which no candidate is begun on parts of batches.
PARTS_SHARE = 0.02
# Fewer examples say nothing of many.
_FEWEST_EXAMPLES = 8


def share_to_time(
    num_steps: int, batch_size: int, *, is_cpu: bool, narrow_speed: float = 1.0
) -> float | None:
    """Returns the share of each batch on which the candidates of a run of so many steps are timed;
    None if the run is too short for that.

    Args:
        num_steps: steps of the run.
        batch_size: examples of a batch.
        is_cpu: whether it trains on a CPU.
        narrow_speed: rate of a product in a narrow type that may be chosen, as a multiple of
            fp32's.

    On a CPU a step costs about as much as its examples. An accelerator starts its kernels however
    few they are, and its runs of so few steps last seconds.
    """
    if num_steps >= _WHOLE_BATCH_STEPS:
        return 1.0
    share = min(1.0, max(_SHARE_OF_STEP * num_steps, _FEWEST_EXAMPLES / batch_size))
    worth = min(_MOST_SPEED, max(1.0, narrow_speed))
    most = _MOST_OF_STEP * (worth if num_steps >= _LEAST_STEPS_OF_NARROW else 1.0) * num_steps
    return share if is_cpu and share <= most else None


def first_part(batch: Batch, share: float) -> Batch:
    """Returns the first examples of a batch, a share of them."""
    return batch if share == 1.0 else split(batch, max(1, round(share * num_examples(batch))))[0]
