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
    num_far = _num_far_from_square(sizes)
    if fit != CUT or not num_far:
        return []
    return [
        f"fit=cut: {num_far:,} of {len(sizes):,} {what} lose more than a quarter, for they are far "
        "from square; fit=pad and fit=squeeze lose nothing"
    ]


def choose_fit(
    stated: str | None, sizes: Sequence[tuple[int, int]], what: str
) -> tuple[str, list[str]]:
    """Returns how pictures become square, and a notice: as is stated; if it is not, they are cut,
    or squeezed if a good part of them would lose much."""
    num_far = 0 if stated else _num_far_from_square(sizes)
    if not num_far:
        return stated or CUT, []
    said = (
        f"fit=squeeze: {num_far:,} of {len(sizes):,} {what} would lose more than a quarter if they "
        "were cut to squares, and the network states no way"
    )
    return SQUEEZE, [said]


def _num_far_from_square(sizes: Sequence[tuple[int, int]]) -> int:
    """Returns how many pictures would lose more than a quarter, 0 if they are hardly any."""
    num_far = sum(max(size) > _FAR_FROM_SQUARE * min(size) for size in sizes)
    return num_far if num_far >= max(1, _LEAST_SHARE * len(sizes)) else 0
