"""Computes attention for some queries at a time: all scores of a long sequence in float64, for
which there is no fused kernel, may be more than a device has."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Scores that take no more are computed at once.
_PART_BYTES = 256 * 2**20


@contextlib.contextmanager
def attention_by_parts(part_bytes: int = _PART_BYTES) -> Iterator[None]:
    """Returns a context in which torch's attention in float64 is computed for some queries at a
    time, and again in the backward pass, if its scores take more than so many bytes: the same sums
    in another order. Attention that drops scores is left as it is, for it draws for all of them
    together.

    Legend: B what comes before the sequence, T queries, S keys, D width.
    """
    whole: Any = F.scaled_dot_product_attention

    def by_parts(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, **more: Any,
    ) -> Tensor:  # fmt: skip
        row_bytes = 8 * query.shape[:-2].numel() * key.shape[-2]
        num_rows = max(1, part_bytes // max(1, row_bytes))
        is_refused = is_causal and attn_mask is not None  # by torch, in its own words
        is_small = query.dtype != torch.float64 or query.shape[-2] <= num_rows
        if dropout_p > 0.0 or is_refused or is_small:
            return whole(query, key, value, attn_mask, dropout_p, is_causal, **more)
        part = functools.partial(_part, whole, attn_mask, is_causal, more)
        parts = [
            checkpoint(
                part, rows_BTD, key, value, number * num_rows,
                use_reentrant=False, preserve_rng_state=False,
            )
            for number, rows_BTD in enumerate(query.split(num_rows, dim=-2))
        ]  # fmt: skip
        return torch.cat(parts, dim=-2)

    module: Any = F
    module.scaled_dot_product_attention = by_parts
    try:
        yield
    finally:
        module.scaled_dot_product_attention = whole


def _part(
    whole: Any, mask: Tensor | None, is_causal: bool, more: dict[str, Any],
    rows_BTD: Tensor, key_BSD: Tensor, value_BSD: Tensor, first: int,
) -> Tensor:  # fmt: skip
    """Returns the attention of some queries, of which ``first`` is the place."""
    num_rows = rows_BTD.shape[-2]
    if is_causal:
        places_T = torch.arange(num_rows, device=rows_BTD.device) + first
        mask = places_T[:, None] >= torch.arange(key_BSD.shape[-2], device=rows_BTD.device)
    elif mask is not None and mask.ndim > 1 and mask.shape[-2] > 1:
        mask = mask.narrow(-2, first, num_rows)
    return whole(rows_BTD, key_BSD, value_BSD, mask, **more)
