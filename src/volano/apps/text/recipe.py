"""The rules for a language model's hyper-parameters, from the text, the length of the run and the
depth.

"Measured" refers to docs/log.md: 5 MB of plays, bf16, torch 2.13, one core with AVX512_BF16, one
seed per setting. "nanochat" is Karpathy 2025 (its README and dev/LOG.md), "slowrun" the NanoGPT
slowrun of 2026 (100M tokens, many epochs), notes on both agree with arXiv 2605.01640.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from volano.apps.options import not_tried, tried_around, tried_between
from volano.apps.text.network import DecoderShape
from volano.apps.text.options import MAX_DEPTH, MIN_DEPTH

# The place at which steps are timed before the depth is known.
PROBE_DEPTH = 4
# By themselves, runs end here: after so many passes even a regularised model learns the text by
# heart.
MOST_EPOCHS = 20.0
# Below the first, each text is new; from the second on it is known (slowrun: reuse is harmless up
# to about 4 epochs).
_MUCH_DATA, _LITTLE_DATA = 2.0, 4.0
# See choose_tokens_per_step.
_TOKENS_AT_A_MILLION, _EXPONENT = 2048, 0.383


@dataclass(frozen=True, kw_only=True)
class TextRecipe:
    """The numbers of one training.

    Attributes:
        regime: the regime in words, with its reason.
        matrix_lr: the learning rate of Muon.
        embedding_lr: the learning rate of AdamW on the embedding.
        head_lr: the learning rate of AdamW on the head.
        weight_decay: the weight decay of Muon, decoupled.
        ns_steps: Newton-Schulz steps of Muon.
        dropout: see ``DecoderShape``.
        ema_decay: the decay of the average of weights, or None.
        num_evaluations: the number of times that the validation set is evaluated.
    """

    regime: str = not_tried()
    matrix_lr: float = tried_around(3.0)
    embedding_lr: float = tried_around(4.0)
    head_lr: float = tried_around(4.0)
    weight_decay: float = tried_between(0.01, 1.5, is_logarithmic=True)
    ns_steps: int
    dropout: float = tried_between(0.0, 0.3)
    ema_decay: float | None
    num_evaluations: int = not_tried()


def choose_recipe(
    *, shape: DecoderShape, num_bytes: int, tokens_per_step: int, epochs: float, num_steps: int
) -> TextRecipe:
    """Returns every number of a training of ``num_steps`` steps in ``epochs`` epochs.

    - Muon lr 0.02 with nanochat's scaling. Measured at depth 4, 330 steps of 2,048 tokens: 0.02:
      2.113 bits per byte, 0.04: 2.137.
    - Newton-Schulz: 3 steps if 5 would cost more than a seventh of the step (see
      ``choose_tokens_per_step``), as in airbench. Measured likewise: 5: 2.113 in 101 s, 3: 2.116 in
      92 s.
    - AdamW: embedding 0.2, head 0.004, by ``(width / 768) ** -0.5`` (nanochat).
    - Much data (under 2 epochs): no dropout, hardly any decay. Little data (4 epochs and more):
      dropout 0.15, decay 1.0 on the matrices, an average of the weights over the last tenth of the
      run (slowrun: dropout 0.1, decay 0.8 to 1.6, averages gained 0.02 to 0.03 nats). In between in
      proportion; and in proportion to the weights for each training byte, from a quarter to one: a
      model that cannot learn its text by heart needs no help against it.
    """
    share = _between(epochs, _MUCH_DATA, _LITTLE_DATA) * _between(
        shape.num_matrix_parameters / num_bytes, 0.25, 1.0
    )
    scale = (shape.width / 768) ** -0.5
    return TextRecipe(
        regime=_regime(share, epochs, shape.num_matrix_parameters / num_bytes),
        matrix_lr=0.02,
        embedding_lr=0.2 * scale,
        head_lr=0.004 * scale,
        weight_decay=round(0.02 + 0.98 * share, 3),
        ns_steps=3 if tokens_per_step < 32 * shape.width else 5,
        dropout=round(0.15 * share, 3),
        ema_decay=None if share < 0.5 or num_steps < 100 else 1.0 - 10.0 / num_steps,
        num_evaluations=max(1, min(8, num_steps // 40)),
    )


def _regime(share: float, epochs: float, weights_per_byte: float) -> str:
    facts = f"{epochs:.2g} epochs, {weights_per_byte:.2g} weights for each byte"
    how = "no dropout, hardly any weight decay"
    if share > 0.0:
        how = f"dropout {0.15 * share:.2g}, weight decay {0.02 + 0.98 * share:.2g}"
    if epochs < _MUCH_DATA:
        return f"much data ({facts}): {how}"
    return (
        f"{'little data' if epochs >= _LITTLE_DATA else 'between much and little data'} "
        f"({facts}): {how}"
    )


def _between(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))


def depths_by_operations(
    *, num_bytes: int, vocab_size: int, context: int
) -> list[tuple[int, float]]:
    """Returns the depths that suit a text, the deepest first, each with the operations of a
    training from which on its number of weights is nearest to what they can teach.

    10.5 tokens for each weight (nanochat), which is ``sqrt(flops / 63)`` weights. Measured, with
    2,048 tokens a step: depth 2, 900 steps: 2.020 bits per byte in 71 s of one core; depth 3, 500
    steps: 2.063 in 81 s; depth 4, 330 steps: 2.113 in 101 s. At most two weights for each training
    byte (slowrun's models that gained from more were regularised beyond this recipe).
    """
    found, before = [(MIN_DEPTH, 0.0)], 0
    for depth in range(MIN_DEPTH, MAX_DEPTH + 1):
        shape = DecoderShape(vocab_size=vocab_size, context=context, depth=depth)
        weights = shape.num_matrix_parameters
        # By the ratio, half way between two depths.
        if before and before * weights < (2.0 * num_bytes) ** 2:
            found.append((depth, 63.0 * before * weights))
        before = weights
    return found[::-1]


def choose_depth(*, flops: float, num_bytes: int, vocab_size: int, context: int) -> int:
    """Returns the depth for a training of ``flops`` operations; see
    :func:`depths_by_operations`."""
    depths = depths_by_operations(num_bytes=num_bytes, vocab_size=vocab_size, context=context)
    return next(depth for depth, least in depths if flops >= least)


def choose_tokens_per_step(*, num_tokens: float, width: int, is_cpu: bool) -> int:
    """Returns the tokens of a batch for a run over ``num_tokens``, a power of two.

    - ``2048 * (num_tokens / 1e6) ** 0.383``: nanochat's exponent, from what was measured here at a
      million.
    - At least 8 for each channel: five Newton-Schulz steps cost about 4.4 * width / tokens of
      forward and backward by their operations; measured at width 256 and 2,048 tokens: 16 % of the
      step.
    - At least 2,048 on a CPU and 16,384 elsewhere, where smaller batches leave the device idle; at
      most 2**19.
    """
    wanted = max(
        _TOKENS_AT_A_MILLION * (num_tokens / 1e6) ** _EXPONENT,
        8.0 * width,
        2048 if is_cpu else 16384,
    )
    return min(2**19, 2 ** round(math.log2(wanted)))


def least_tokens_for(tokens_per_step: int) -> float:
    """Returns the tokens of a run from which on its batch has so many, by
    :func:`choose_tokens_per_step`, a power of two."""
    return 1e6 * (tokens_per_step / math.sqrt(2) / _TOKENS_AT_A_MILLION) ** (1 / _EXPONENT)
