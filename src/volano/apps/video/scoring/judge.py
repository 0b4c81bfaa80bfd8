"""Measures the distances of generated clips from real ones, and tests whether they may be trusted.

The figure is a ratio, ``D(generated, test) / D(train, test)``: 1 is as far as other real clips are.
It stands on features that were learned here, so it is tried first: real clips that were frozen,
shuffled or blurred have to come out farther away than any set of untouched ones, and the net must
have learned its pretexts. If not, the ratio is reported as not accepted.

Shapes: N clips, T frames, C channels, S pixels a side, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from volano.apps.video.scoring.distances import frechet_distance, kernel_distance, nearest_distances
from volano.apps.video.scoring.features import (
    PRETEXTS,
    FeatureNet,
    blurred,
    features_of,
    frozen,
    pretext_accuracy,
    shuffled,
)
from volano.device import Device

# Disjoint sets of real training clips whose distances to the test clips say how much chance alone
# moves a distance.
NUM_REFERENCES = 4
# The pretext accuracy lies at least so many standard errors above chance.
_STANDARD_ERRORS = 4.0
_SHUFFLE_SEED = 1


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """The test of whether the distances can tell real clips from spoiled ones.

    Attributes:
        passed: all of the below hold.
        reason: the first that does not, in words; None if passed.
        pretext_accuracy: the accuracy of the feature net on test clips.
        chance: the share that guessing scores.
        frechet: ratios of the spoiled sets, and ``"real"``, the largest among sets of untouched
            clips.
        kernel: likewise.
    """

    passed: bool
    reason: str | None
    pretext_accuracy: float
    chance: float
    frechet: dict[str, float]
    kernel: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Returns all fields."""
        return asdict(self)


class Judge:
    """The distances of sets of clips to the test clips, as ratios.

    Args:
        net: the net of features.
        train: clips to compare with, uint8 [at least NUM_REFERENCES * N, T, C, S, S].
        test: uint8 [N, T, C, S, S].
        device: the device on which the net is.
    """

    def __init__(self, net: FeatureNet, train: Tensor, test: Tensor, device: Device) -> None:
        self._net, self._device, self._test_clips = net, device, test
        self._test = features_of(net, test, device)
        count = min(len(test), len(train) // NUM_REFERENCES)
        self._references = train[: NUM_REFERENCES * count].split(max(1, count))[:NUM_REFERENCES]
        self._real = [features_of(net, part, device) for part in self._references]

    def ratio(self, clips: Tensor, distance: Callable[[Tensor, Tensor], float]) -> float:
        """Returns ``D(clips, test) / D(train, test)``, the latter a mean over sets of real clips;
        clips uint8 [N, T, ...]."""
        return self._over(distance, features_of(self._net, clips, self._device))

    def _over(self, distance: Callable[[Tensor, Tensor], float], features: Tensor) -> float:
        reference = sum(distance(real, self._test) for real in self._real) / len(self._real)
        return distance(features, self._test) / max(reference, 1e-12)

    def self_test(self, *, seed: int) -> SelfTest:
        """Spoils real training clips, and looks whether it shows."""
        generator = torch.Generator().manual_seed(_SHUFFLE_SEED + seed)
        clips = self._references[0]
        spoiled = {
            "frozen": frozen(clips),
            "shuffled": shuffled(clips, generator),
            "blurred": blurred(clips),
        }
        return self.self_test_on(spoiled, seed=seed)

    def self_test_on(self, spoiled: dict[str, Tensor], *, seed: int) -> SelfTest:
        """The same with spoiled sets that are given: name -> clips uint8 [N, T, C, S, S]."""
        ratios = {
            name: {
                "real": max(self._over(distance, real) for real in self._real),
                **{kind: self.ratio(clips, distance) for kind, clips in spoiled.items()},
            }
            for name, distance in (
                ("frechet", frechet_distance),
                ("kernel", biased_kernel_distance),
            )
        }
        accuracy = pretext_accuracy(self._net, self._test_clips, self._device, seed=seed)
        chance = 1 / len(PRETEXTS)
        error = (chance * (1 - chance) / len(self._test_clips)) ** 0.5
        reason = None
        if accuracy < chance + _STANDARD_ERRORS * error:
            reason = (
                f"the feature net tells {accuracy:.0%} of tampered clips right, guessing "
                f"{chance:.0%}"
            )
        for name, values in ratios.items():
            for kind in spoiled:
                # Nor if one is not a number.
                if reason is None and not values[kind] > values["real"]:
                    reason = f"{kind} clips are not farther by the {name} distance than real ones"
        return SelfTest(
            passed=reason is None,
            reason=reason,
            pretext_accuracy=accuracy,
            chance=chance,
            frechet=ratios["frechet"],
            kernel=ratios["kernel"],
        )


def biased_kernel_distance(x: Tensor, y: Tensor) -> float:
    """The estimator that is never below 0, as a ratio asks for; both sides of it carry the same
    bias."""
    return kernel_distance(x, y, unbiased=False)


def memorization(generated: Tensor, test: Tensor, train: Tensor) -> dict[str, float]:
    """Returns the medians of the distances to the nearest training clip, in grey levels, of
    generated and of test clips. Far below the test clips', generated ones are copies."""
    return {
        "generated": float(nearest_distances(generated, train).median()),
        "test": float(nearest_distances(test, train).median()),
        "smallest_generated": float(nearest_distances(generated, train).min()),
    }
