"""The features of a frozen trunk, and the beginning of a fine-tuning that they give."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from volano.device import Device
from volano.errors import NumericsError
from volano.pretrained.linear_probe import PROBE, LinearProbe


@dataclass(frozen=True, kw_only=True)
class FineTuningStart:
    """The beginning of fine-tuning: the solved head, and the seconds of the frozen trunk's pass for
    one example."""

    probe: LinearProbe
    example_seconds: float

    @classmethod
    def of_run(cls, folder: Path) -> FineTuningStart | None:
        """Returns the beginning of a run; None if it fine-tunes nothing."""
        if not (folder / PROBE).is_file():
            return None
        return cls(probe=LinearProbe.load(folder / PROBE), example_seconds=0.0)


def frozen_features(
    trunk: nn.Module, batches: Iterable[tuple[Tensor, ...]], device: Device
) -> tuple[Tensor, float]:
    """Returns the features of all batches, fp32 [N, F] on the host, and the seconds of a pass for
    one example; the trunk is left on the host.

    Raises:
        NumericsError: some are not finite.
    """
    trunk.to(device.torch_device).eval()
    parts: list[Tensor] = []
    seconds: list[float] = []
    with torch.inference_mode():
        for batch in batches:
            mark = time.perf_counter()
            parts.append(trunk(*(device.move(part) for part in batch)).cpu())
            seconds.append(time.perf_counter() - mark)
    trunk.cpu()
    features = torch.cat(parts)
    num_bad = int((~features.isfinite()).any(1).sum())
    if num_bad:
        raise NumericsError(
            "The features of a pretrained network must be finite",
            got=f"NaN or infinity for {num_bad:,} of {len(features):,} examples",
            remedy="Its weights are damaged, or its `preprocessing` is another one",
        )
    timed = slice(1 if len(parts) > 1 else 0, None)  # the first batch allocates and loads
    return features, sum(seconds[timed]) / max(1, sum(map(len, parts[timed])))
