"""How long one update of Muon takes with its iteration in bf16 and in fp32, on the networks of the
applications.

    python benchmarks/muon_dtype.py [--rounds 5]

Both optimizers hold the same weights and gradients; their steps are timed in turn, the median
counts.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

from volano.apps.image.network import build_network
from volano.apps.text.network import Decoder, DecoderShape
from volano.apps.video.networks.unet import UNet
from volano.apps.video.pixels import PixelScale
from volano.device import Device
from volano.training import MuonAdamW


def optimizer_of(model: nn.Module, dtype: torch.dtype) -> MuonAdamW:
    """Muon for all matrices of a model, with random gradients in place."""
    matrices = [p for p in model.parameters() if p.ndim > 1 and p.requires_grad]
    for parameter in matrices:
        parameter.grad = torch.randn_like(parameter)
    return MuonAdamW([{"params": matrices, "algorithm": "muon", "ns_dtype": dtype}])


def seconds_of(optimizer: MuonAdamW) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    optimizer.step()
    return time.perf_counter() - start


def networks() -> dict[str, nn.Module]:
    """One network of each application, as a short run on a CPU takes it."""
    shape = DecoderShape(vocab_size=2048, context=128, depth=2)
    return {
        "image, thin": build_network("thin", 1, 28, 10, [0.0], [1.0]),
        "text, depth 2": Decoder(shape),
        "video, U-Net": UNet(
            num_frames=16, channels=1, num_classes=0, width=64, scale=PixelScale((0.0,), (1.0,))
        ),
    }


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads; units for bf16: {Device('cpu').has_bf16_units}")
    for name, model in networks().items():
        optimizers = [optimizer_of(model, dtype) for dtype in (torch.bfloat16, torch.float32)]
        for optimizer in optimizers:
            optimizer.step()
        rounds = [
            [seconds_of(optimizer) for optimizer in optimizers] for _ in range(arguments.rounds)
        ]
        narrow, wide = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"{name}: bf16 {narrow * 1e3:.0f} ms, fp32 {wide * 1e3:.0f} ms, {narrow / wide:.1f} "
            "times"
        )


if __name__ == "__main__":
    main()
