"""What both networks promise."""

import dataclasses

import pytest
import torch

from volano.apps.video.model_spec import VideoSpec, make_network
from volano.apps.video.recipe import network_shape, parameter_groups
from volano.errors import CheckpointError
from volano.training import MuonAdamW

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


@pytest.fixture(params=[SPEC, TRANSFORMER], ids=["unet", "transformer"])
def spec(request):
    return request.param


def woken(spec, channels=None):
    """A network whose zeroed weights were given values, so that everything takes part."""
    if channels is not None:
        spec = dataclasses.replace(spec, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels)
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


@pytest.mark.parametrize("channels", [1, 3])
def test_the_shape_stays(spec, channels):
    noisy, levels, labels = inputs(spec, channels=channels)
    assert woken(spec, channels)(noisy, levels, labels).shape == noisy.shape


def test_clips_of_a_batch_do_not_meet(spec):
    network, (noisy, levels, labels) = woken(spec), inputs(spec)
    whole = network(noisy, levels, labels)
    alone = network(noisy[1:2], levels[1:2], labels[1:2])
    assert torch.allclose(whole[1:2], alone, atol=1e-5)


def test_every_frame_sees_every_other_and_its_level(spec):
    network, (noisy, levels, labels) = woken(spec), inputs(spec, batch=1)
    before = network(noisy, levels, labels)
    changed = noisy.clone()
    changed[:, 0] += 1
    assert ((network(changed, levels, labels) - before).abs().amax((0, 2, 3, 4)) > 0).all()
    other = levels.clone()
    other[:, 2] = 1 - other[:, 2]
    assert ((network(noisy, other, labels) - before).abs().amax((0, 2, 3, 4)) > 0).all()


def test_the_class_matters_and_none_is_the_last_label(spec):
    network, (noisy, levels, _) = woken(spec), inputs(spec, batch=1)
    said = [network(noisy, levels, torch.tensor([label])) for label in (0, 1, 2)]
    assert not torch.allclose(said[0], said[1])
    assert torch.equal(network(noisy, levels), said[2])


def test_without_classes_labels_mean_nothing(spec):
    network = woken(dataclasses.replace(spec, classes=(), class_shares=()))
    noisy, levels, labels = inputs(spec)
    assert torch.equal(network(noisy, levels, labels), network(noisy, levels))


def test_the_unet_starts_as_the_linear_guess_and_is_blind_to_pure_noise():
    torch.manual_seed(0)
    network = make_network(SPEC)
    noisy, levels, labels = inputs(SPEC)
    t = levels[:, :, None, None, None]
    bias = network.out[-1].bias
    with torch.no_grad():
        bias.zero_()
        assert torch.allclose(network(noisy, levels, labels), noisy * t / (t**2 + (1 - t) ** 2), atol=1e-6)
    network = woken(SPEC)
    still = torch.zeros_like(levels)
    assert torch.equal(network(noisy, still, labels), network(-3 * noisy, still, labels))


def test_patches_come_back():
    from volano.apps.video.networks.transformer import _from_patches, _to_patches

    clip = torch.arange(2 * 3 * 2 * 8 * 8.0).reshape(2, 3, 2, 8, 8)
    tokens = _to_patches(clip, 4)
    assert tokens.shape == (2, 3 * 4, 2 * 16)
    assert torch.equal(_from_patches(tokens, clip.shape, 4), clip)
    assert torch.equal(tokens[0, 1], clip[0, 0, :, :4, 4:].flatten())  # the second token is the patch to the right


def test_each_parameter_is_in_one_group_and_matrices_of_blocks_go_to_muon(spec):
    network = make_network(spec)
    muon, rest = parameter_groups(network, matrix_lr=0.02, rest_lr=0.003)
    listed = [id(parameter) for group in (muon, rest) for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in network.parameters())
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    of_muon = {names[id(parameter)] for parameter in muon["params"]}
    wanted = {"conv1", "conv2"} if spec.network == "unet" else {"qkv", "project", "widen", "narrow"}
    assert {name.split(".")[-2] for name in of_muon} == wanted
    MuonAdamW([muon, rest])


def test_one_step_of_training_moves_every_parameter(spec):
    network, (noisy, levels, labels) = woken(spec).train(), inputs(spec)
    optimizer = MuonAdamW(parameter_groups(network, matrix_lr=0.02, rest_lr=0.003))
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    network(noisy, levels, labels).square().mean().backward()
    optimizer.step()
    still = [name for name, parameter in network.named_parameters() if torch.equal(parameter, before[name])]
    assert still == []


@pytest.mark.parametrize(("size", "patch"), [(16, 2), (32, 4), (64, 8), (40, 5), (24, 3)])
def test_a_frame_is_at_most_eight_patches_wide(size, patch):
    assert network_shape("transformer", size)["patch"] == patch


def test_the_description_comes_back(spec):
    assert VideoSpec.from_json(spec.to_json()) == spec
    with pytest.raises(CheckpointError, match="schema version 1"):
        VideoSpec.from_json({**spec.to_json(), "schema_version": 9})
    with pytest.raises(CheckpointError, match="describes a model of clips"):
        VideoSpec.from_json({"schema_version": 1, "network": "unet"})
