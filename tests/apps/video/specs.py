"""Small models of clips that tests of several modules look at."""

import dataclasses

import torch

from volano.apps.video.model_spec import VideoSpec, make_network

SPEC = VideoSpec(
    network="unet",
    width=16,
    depth=0,
    patch=0,
    num_frames=6,
    context=3,
    channels=1,
    size=16,
    fps=10.0,
    classes=("a", "b"),
    class_shares=(0.5, 0.5),
    mean=(20.0,),
    std=(40.0,),
)


TRANSFORMER = dataclasses.replace(SPEC, network="transformer", width=64, depth=2, patch=4)


def woken(spec, channels=None):
    """A network whose zeroed weights were given values, so that everything takes part."""
    if channels is not None:
        spec = dataclasses.replace(
            spec, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels
        )
    torch.manual_seed(0)
    network = make_network(spec).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return network


def inputs(spec, batch=3, channels=1):
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(batch, spec.num_frames, channels, spec.size, spec.size, generator=generator)
    levels = torch.rand(batch, spec.num_frames, generator=generator)
    return noisy, levels, torch.tensor([0, 1, 2][:batch])
