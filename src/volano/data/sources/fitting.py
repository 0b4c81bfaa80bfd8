"""The ways in which a picture that is no square becomes one, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence

CUT, PAD, SQUEEZE = FITS = ("cut", "pad", "squeeze")
IN_WORDS = {
    CUT: "cut to a centred square and scaled",
    PAD: "padded with black to a square and scaled",
    SQUEEZE: "squeezed to a square and scaled",
}
# What is said if so many of a set lose more than a quarter when they are cut.
_FAR_FROM_SQUARE, _LEAST_SHARE = 4 / 3, 0.2


def shape_notices(sizes: Sequence[tuple[int, int]], fit: str, what: str) -> list[str]:
    """Returns in words what cutting loses of pictures of these widths and heights, if a good part
    of them is far from square; ``what``: what they are ("images")."""
    num_far = sum(max(size) > _FAR_FROM_SQUARE * min(size) for size in sizes)
    if fit != CUT or num_far < max(1, _LEAST_SHARE * len(sizes)):
        return []
    return [
        f"fit=cut: {num_far:,} of {len(sizes):,} {what} lose more than a quarter, for they are far "
        "from square; fit=pad and fit=squeeze lose nothing"
    ]
