import pytest
import torch

from volano.apps.image.network import (
    build_network,
    choose_shape,
    forward_flops,
    identity_convolution,
    parameter_groups,
)
from volano.errors import DataError, UsageError

FORMATS = [(1, 8), (3, 8), (1, 12), (1, 28), (3, 32), (3, 48), (3, 64), (1, 96), (3, 128), (3, 160)]


def images(channels, side, count=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(
        0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator
    )


@pytest.mark.parametrize(("channels", "side"), FORMATS)
def test_bytes_in_logits_out(channels, side):
    batch = images(channels, side)
    model = build_network("thin", channels, side, 7, [120.0] * channels, [60.0] * channels, batch)
    model(batch).sum().backward()
    logits = model.eval()(batch)
    assert logits.shape == (12, 7)
    assert logits.dtype == torch.float32
    again = build_network("thin", channels, side, 7, [0.0] * channels, [1.0] * channels)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(batch), logits)


@pytest.mark.parametrize("size", ["thin", "base", "wide"])
def test_flops_agree_with_torchs_counter(size):
    from torch.utils.flop_counter import FlopCounterMode

    model = build_network(size, 3, 32, 10, [120.0] * 3, [60.0] * 3).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images(3, 32, count=2))
    expected = forward_flops(choose_shape(size, 3, 32, 10), 32)
    assert counter.get_total_flops() / 2 == pytest.approx(expected, rel=0.01)


def test_the_stem_whitens():
    # Correlated inputs: neighbouring pixels share most of their value.
    noise = torch.nn.functional.avg_pool2d(torch.rand(64, 1, 34, 34), 3, 1) * 400
    batch = noise.clamp(0, 255).to(torch.uint8)
    mean, std = batch.float().mean().item(), batch.float().std().item()
    model = build_network("thin", 1, 32, 10, [mean], [std], batch)
    responses = torch.nn.functional.conv2d(model.normalise(batch), model.stem.weight[:8])
    rows = responses.transpose(0, 1).flatten(1)
    covariance = (rows @ rows.T) / rows.shape[1]
    diagonal = covariance.diagonal()
    assert (diagonal > 0.5).all()
    assert (diagonal < 1.5).all()
    assert (covariance - torch.diag(diagonal)).abs().max() < 0.15


def test_every_trained_parameter_is_in_one_group():
    model = build_network("base", 3, 32, 10, [120.0] * 3, [60.0] * 3)
    groups = parameter_groups(model, kernel_lr=0.05, rest_lr=0.005)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(
        id(parameter) for parameter in model.parameters() if parameter.requires_grad
    )
    assert [group["lr"] for group in groups] == [0.05, 0.005]


def test_wrong_sizes_are_refused():
    with pytest.raises(UsageError, match="one of tiny, thin, base, wide; got 'huge'"):
        choose_shape("huge", 3, 32, 10)
    with pytest.raises(DataError, match="at least 4 pixels"):
        choose_shape("thin", 3, 3, 10)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 8), (8, 3), (5, 5)])
def test_leading_outputs_of_an_identity_convolution_copy_the_inputs(inputs, outputs):
    torch.manual_seed(0)
    convolution = identity_convolution(inputs, outputs)
    torch.manual_seed(0)
    expected = torch.nn.Conv2d(inputs, outputs, 3, padding=1, bias=False).weight.detach()
    torch.nn.init.dirac_(expected[: min(inputs, outputs)])
    assert torch.equal(convolution.weight, expected)
