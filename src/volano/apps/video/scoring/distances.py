"""Measures distances between two sets of clips: Frechet and polynomial-kernel on features, nearest
neighbour on pixels.

Shapes: N and M clips, D features. In float64 throughout: the square root of a product of
covariances asks for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The bytes of training clips in fp32 at a time, in addition to the clips themselves.
_MOST_BYTES = 2**28


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Returns the squared Frechet distance between Gaussians fitted to x [N, D] and y [M, D]
    (Dowson & Landau 1982; Heusel et al. 2017): ``|mx - my|^2 + tr(Cx + Cy - 2 (Cx Cy)^(1/2))``.

    The trace of the root is the sum of the roots of the eigenvalues of ``Cx^(1/2) Cy Cx^(1/2)``,
    which is symmetric.
    """
    x, y = x.cpu().double(), y.cpu().double()
    cx, cy = torch.cov(x.T).reshape(x.shape[1], -1), torch.cov(y.T).reshape(y.shape[1], -1)
    values, vectors = torch.linalg.eigh(cx)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    crossed = torch.linalg.eigvalsh(root @ cy @ root).clamp(min=0).sqrt().sum()
    distance = (x.mean(0) - y.mean(0)).square().sum() + cx.trace() + cy.trace() - 2 * crossed
    return max(float(distance), 0.0)  # in this order a distance that is not a number stays one


def kernel_distance(x: Tensor, y: Tensor, *, unbiased: bool = True) -> float:
    """Returns the squared maximum mean discrepancy between x [N, D] and y [M, D] under ``(a.b / D +
    1)^3`` (KID: Binkowski et al. 2018; estimators: Gretton et al. 2012, lemma 6).

    The unbiased one may come out below 0; the other does not, and serves for ratios.
    """
    x, y = x.cpu().double(), y.cpu().double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        values, count = kernel(a, a), len(a)
        if unbiased:
            return (values.sum() - values.trace()) / (count * (count - 1))
        return values.mean()

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def nearest_distances(clips: Tensor, train: Tensor) -> Tensor:
    """Returns the root mean squared difference, in grey levels, of each clip to the training clip
    nearest to it, fp32 [N].

    clips uint8 [N, T, C, S, S], train uint8 [M, T, C, S, S]; a clip that was learned by heart comes
    out near 0.
    """
    wanted = clips.flatten(1).float()
    nearest = torch.full((len(wanted),), float("inf"))
    at_once = min(256, max(1, _MOST_BYTES // (4 * clips[0].numel())))
    for part in train.split(at_once):
        others = part.flatten(1).float()
        squares = (
            wanted.square().sum(1)[:, None] + others.square().sum(1)[None] - 2 * wanted @ others.T
        )
        nearest = torch.minimum(nearest, squares.clamp(min=0).amin(1))
    return (nearest / wanted.shape[1]).sqrt()
