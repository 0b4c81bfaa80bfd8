"""What both networks promise."""

import dataclasses

import pytest
import torch

from apps.video.specs import inputs, woken
from volano.apps.video.recipe import parameter_groups
from volano.training import MuonAdamW


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


def test_one_step_of_training_moves_every_parameter(spec):
    network, (noisy, levels, labels) = woken(spec).train(), inputs(spec)
    optimizer = MuonAdamW(parameter_groups(network, matrix_lr=0.02, rest_lr=0.003))
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    network(noisy, levels, labels).square().mean().backward()
    optimizer.step()
    still = [
        name
        for name, parameter in network.named_parameters()
        if torch.equal(parameter, before[name])
    ]
    assert still == []
