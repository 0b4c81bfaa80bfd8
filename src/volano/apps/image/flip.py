"""Decides from the data whether a mirrored image keeps its label.

The classifier of the probe has no training loop: a fixed bank of random patches, pooled into a
4 x 4 grid (Coates, Lee & Ng 2011, "An analysis of single-layer networks"), then ridge regression
in closed form. It takes seconds and gives the same answer for the same seed.

Two questions are asked on held-out images:

1. Does a classifier that never saw a mirrored image still recognise mirrored ones? If most
   classes fail, left and right carry meaning throughout (digits, letters, text) and flips only
   cost accuracy. A minority of failing classes is no objection: all shoes of Fashion-MNIST point
   to the left, which is how they were photographed, not what they are.
2. Does a classifier trained *with* mirrored images lose a class? It must, if the mirror image
   of one class is another class (b and d, left and right arrows): then flips are refused however
   few classes are concerned.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_LARGEST_SIDE = 28  # larger images are shrunk to this size
FILTERS = 64
PATCH = 5
GRID = 4
CHUNK = 32
RIDGE = 1e-2  # relative to the mean squared feature norm per direction
MAX_TRAIN = 2_000
MAX_HELD = 1_000
UNRECOGNISED = 0.25  # a class fails question 1 when its accuracy falls by more
FAILING_SHARE = 0.5  # share of the held-out images in failing classes that forbids flips
LEAST_HELD = 20  # images of several labels or numbers
LEAST_EXPLAINED = 0.1  # share of their variance
CLASS_LOSS = 0.15  # question 2: loss of accuracy of one class, beyond twice its standard error


def random_patch_features(images: Tensor, bank: Tensor) -> Tensor:
    """Returns ``[N, 2 * FILTERS * GRID ** 2]`` features of normalised ``[N, C, H, W]`` images."""
    pieces = []
    # Blocks of 6 MB at 28 px: larger ones go back to the system when they are freed, and their
    # pages cost more than the arithmetic.
    for chunk in images.split(CHUNK):
        response = F.conv2d(chunk, bank, padding=bank.shape[-1] // 2)
        mean = F.adaptive_avg_pool2d(response, GRID)
        above = F.adaptive_avg_pool2d(response.relu_(), GRID)
        # What lies below zero is what lies above, without the mean.
        pieces.append(torch.cat([above, above - mean], dim=1).flatten(1))
    return torch.cat(pieces)


def ridge_outputs(train: Tensor, targets: Tensor, tests: list[Tensor]) -> list[Tensor]:
    """Fits ridge regression to targets ``[N, outputs]``; returns the outputs of each test set."""
    centre, spread = train.mean(0), train.std(0) + 1e-3
    design = (train - centre) / spread
    gram = design.T @ design
    gram += RIDGE * len(design) * torch.eye(len(gram), device=gram.device)
    offset = targets.mean(0)
    weights = torch.linalg.solve(gram, design.T @ (targets - offset))
    return [((test - centre) / spread) @ weights + offset for test in tests]


def class_accuracy(scores: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Returns per class the accuracy and the number of images, both ``[classes]``."""
    count = torch.bincount(labels, minlength=classes).float()
    correct = torch.bincount(labels[scores.argmax(1) == labels], minlength=classes).float()
    return correct / count.clamp(min=1), count


def shrink(images: Tensor) -> Tensor:
    """Shrinks bytes ``[N, C, H, W]`` to ``_LARGEST_SIDE`` pixels or less and normalises each."""
    x = images.float()
    if max(x.shape[-2:]) > _LARGEST_SIDE:
        x = F.interpolate(x, size=(_LARGEST_SIDE, _LARGEST_SIDE), mode="area")
    x = x - x.mean((1, 2, 3), keepdim=True)
    return x / (x.std((1, 2, 3), keepdim=True) + 1.0)


def draw_bank(images: Tensor, generator: torch.Generator) -> Tensor:
    """Cuts random patches from the images and makes them zero-mean filters of norm one."""
    patch = min(PATCH, *images.shape[-2:])
    picks = torch.randint(0, len(images), (FILTERS,), generator=generator)
    top = torch.randint(0, images.shape[-2] - patch + 1, (FILTERS,), generator=generator)
    left = torch.randint(0, images.shape[-1] - patch + 1, (FILTERS,), generator=generator)
    cut = torch.stack(
        [
            images[n, :, y : y + patch, x : x + patch]
            for n, y, x in zip(picks.tolist(), top.tolist(), left.tolist(), strict=True)
        ]
    )
    cut = cut - cut.mean((1, 2, 3), keepdim=True)
    noise = torch.randn(cut.shape, generator=generator).to(cut) * 1e-2  # for blank patches
    cut = cut + noise
    return cut / cut.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


class _Features(NamedTuple):
    """The features of images to fit and of those held out, as they are and mirrored."""

    plain: Tensor
    mirrored: Tensor
    held_plain: Tensor
    held_mirrored: Tensor


@torch.no_grad()
def flip_is_label_preserving(images: Tensor, labels: Tensor, seed: int) -> tuple[bool, str]:
    """Returns whether left-right flips keep the labels, and why.

    ``images`` are bytes ``[N, C, H, W]``, ``labels`` ``[N]`` integers from 0, or ``[N, outputs]``
    labels or numbers. At most 3,000 images are used; two thirds are fitted, one third is held out.
    Too few images: no flips.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)[: MAX_TRAIN + MAX_HELD]
    order = order.to(images.device)
    held, train = order[: len(order) // 3], order[len(order) // 3 :]
    classes = 0 if labels.ndim > 1 else int(labels.max()) + 1
    if len(held) < (5 * classes or LEAST_HELD):
        told = f" for {classes} classes" * bool(classes)
        return False, f"only {len(order)} images{told}: too few to tell"
    train_images, held_images = shrink(images[train]), shrink(images[held])
    bank = draw_bank(train_images, generator)
    features = _Features(
        *(
            random_patch_features(some, bank)
            for some in (train_images, train_images.flip(-1), held_images, held_images.flip(-1))
        )
    )
    if classes:
        return _keeps_classes(features, labels[train].long(), labels[held].long(), classes)
    numbers = labels.cpu().numpy().astype(np.float64)
    numbers = (numbers - numbers.mean(0)) / np.maximum(numbers.std(0), 1e-6)
    values = torch.from_numpy(numbers.astype(np.float32)).to(images.device)
    return _keeps_outputs(features, values[train], values[held])


def _keeps_classes(
    features: _Features, labels: Tensor, held_labels: Tensor, classes: int
) -> tuple[bool, str]:
    """Asks both questions of classes; ``labels`` are those of the fitted images."""
    wanted, tests = F.one_hot(labels, classes).float(), [*features[2:]]
    scores = ridge_outputs(features.plain, wanted, tests)
    accuracy, count = class_accuracy(scores[0], held_labels, classes)
    accuracy_mirrored, _ = class_accuracy(scores[1], held_labels, classes)
    overall = float((accuracy * count).sum() / count.sum())
    share = count / count.sum()
    failing = accuracy - accuracy_mirrored > UNRECOGNISED
    failing_share = float(share[failing].sum())
    chance = float(share.max())
    if overall < chance + 0.1 * (1 - chance):
        return False, f"the probe itself is near chance ({overall:.1%}): no flips, to be safe"
    if failing_share > FAILING_SHARE:
        return False, (
            f"mirrored images are not recognised in {int(failing.sum())} of {classes} classes "
            f"({failing_share:.0%} of the images): left and right carry meaning"
        )
    (with_flips,) = _fitted_to_both(features, wanted)
    accuracy_with, _ = class_accuracy(with_flips, held_labels, classes)
    loss = accuracy - accuracy_with
    error = (accuracy * (1 - accuracy) + accuracy_with * (1 - accuracy_with)) / count.clamp(min=1)
    worst = loss - 2 * error.sqrt()
    worst[count < 5] = -1.0
    culprit = int(worst.argmax())
    if float(worst[culprit]) > CLASS_LOSS:
        return False, (
            f"training with mirrored images costs class {culprit} {float(loss[culprit]):.0%} of "
            "its accuracy: its mirror image looks like another class"
        )
    return True, (
        f"mirrored images are recognised in {classes - int(failing.sum())} of {classes} classes, "
        f"and no class loses by training with them (worst {float(loss.max()):+.0%})"
    )


def _keeps_outputs(features: _Features, known: Tensor, true: Tensor) -> tuple[bool, str]:
    """Asks both questions of several labels or of numbers, ``[N, outputs]`` of the fitted and of
    the held-out images: by the share of their variance that the ridge regression explains."""

    def explained(found: Tensor) -> float:
        return float(1 - (found - true).square().sum() / (true - true.mean(0)).square().sum())

    own, of_mirrored = map(explained, ridge_outputs(features.plain, known, [*features[2:]]))
    if own < LEAST_EXPLAINED:
        return False, f"the probe itself explains {own:.0%} of the variance: no flips, to be safe"
    if of_mirrored < (1 - FAILING_SHARE) * own:
        return False, (
            f"of mirrored images the probe explains {max(0.0, of_mirrored):.0%} of the variance, "
            f"of others {own:.0%}: left and right carry meaning"
        )
    (after,) = map(explained, _fitted_to_both(features, known))
    if after < (1 - CLASS_LOSS) * own:
        return False, (
            f"trained with mirrored images the probe explains {after:.0%} of the variance instead "
            f"of {own:.0%}"
        )
    return True, (
        f"of mirrored images the probe explains {of_mirrored:.0%} of the variance, of others "
        f"{own:.0%}; trained with both {after:.0%}"
    )


def _fitted_to_both(features: _Features, wanted: Tensor) -> list[Tensor]:
    both = torch.cat([features.plain, features.mirrored])
    return ridge_outputs(both, torch.cat([wanted, wanted]), [features.held_plain])
