"""The integration against fields whose solution is known."""

import math

import pytest
import torch
from torch import nn

from volano.apps.video.integrate_flow import ClipSampling, denoiser, integrate, roll_out

MEAN, DEVIATION = 1.5, 0.5


def gaussian(noisy, levels):
    """The clean clip's mean given the noisy one, where clean pixels are normal with MEAN and
    DEVIATION."""
    t = levels[:, :, None, None, None]
    variance = (t * DEVIATION) ** 2 + (1 - t) ** 2
    return MEAN + t * DEVIATION**2 / variance * (noisy - t * MEAN)


def solution(noise):
    """Where the flow takes noise exactly: the straight map between the two normals."""
    return MEAN + DEVIATION * noise


def error(steps, method):
    noise = torch.randn(
        2, 3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    made = integrate(
        lambda z, t: gaussian(z, t.double()).double(), noise, steps=steps, method=method
    )
    return float((made - solution(noise)).abs().max())


class Double(nn.Module):
    """The Gaussian field as a network; what it answers is shifted by the label."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, noisy, levels, labels=None):
        answer = gaussian(noisy, levels)
        return answer if labels is None else answer + labels[:, None, None, None, None].float()


def generators(count, seed=0):
    return [torch.Generator().manual_seed(seed * 100 + k) for k in range(count)]


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_the_order_of_convergence(method, order):
    coarse, fine = error(32, method), error(64, method)
    # Halving the step divides the error by 2^order; asymptotic, so within a third of an order.
    # Heun's last step is Euler's, over an interval that shrinks with the others and where the field
    # is almost straight.
    assert math.log2(coarse / fine) > order - 0.35
    assert fine < 0.05


def test_one_step_is_the_mean():
    noise = torch.randn(2, 3, 1, 4, 4)
    assert torch.allclose(
        integrate(gaussian, noise, steps=1, method="heun"), torch.full_like(noise, MEAN)
    )


def test_given_frames_stay_and_are_clean():
    asked = []

    def watch(noisy, levels):
        asked.append((noisy[:, :2].clone(), levels.clone()))
        return torch.zeros_like(noisy)

    given = torch.randn(2, 2, 1, 4, 4)
    made = integrate(watch, torch.randn(2, 5, 1, 4, 4), steps=4, method="heun", given=given)
    assert torch.equal(made[:, :2], given)
    assert torch.equal(made[:, 2:], torch.zeros(2, 3, 1, 4, 4))
    for frames, levels in asked:
        assert torch.equal(frames, given)
        assert (levels[:, :2] == 1).all()
        assert (levels[:, 2:] < 1).all()
    assert len(asked) == 4 + 3  # Heun looks twice, but for the last step


def test_guidance_goes_beyond_the_class():
    network, noise = Double(), torch.randn(2, 3, 1, 4, 4)
    levels = torch.full((2, 3), 0.3)
    labels = torch.tensor([0, 1])
    plain = denoiser(network, labels, 1.0)(noise, levels)
    assert torch.equal(plain, network(noise, levels, labels))
    guided = denoiser(network, labels, 2.5)(noise, levels)
    unsaid = network(noise, levels, torch.tensor([2, 2]))
    assert torch.allclose(guided, unsaid + 2.5 * (plain - unsaid), atol=1e-5)
    assert torch.equal(denoiser(network, labels, 0.0)(noise, levels), unsaid)


class Counter(nn.Module):
    """Answers every noisy frame with the last clean one plus one."""

    num_classes = 0

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.contexts = []

    def forward(self, noisy, levels, labels=None):
        known = int((levels[0] == 1).sum())
        self.contexts.append(known)
        last = noisy[:, known - 1 : known] if known else torch.zeros_like(noisy[:, :1])
        steps = torch.arange(1, noisy.shape[1] - known + 1).view(1, -1, 1, 1, 1)
        return torch.cat([noisy[:, :known], last + steps], 1)


class TestRollOut:
    shape = (2, 6, 1, 4, 4)

    def roll(self, network, num_frames, **kwargs):
        with torch.no_grad():
            return roll_out(
                network,
                ClipSampling(steps=2),
                generators(2),
                shape=self.shape,
                num_frames=num_frames,
                context=3,
                **kwargs,
            )

    @pytest.mark.parametrize("num_frames", [1, 5, 6, 7, 9, 20])
    def test_windows_join(self, num_frames):
        network = Counter()
        made = self.roll(network, num_frames)
        assert made.shape == (2, num_frames, 1, 4, 4)
        assert torch.allclose(made[0, :, 0, 0, 0], torch.arange(1.0, num_frames + 1))
        assert set(network.contexts) <= {0, 3}

    @pytest.mark.parametrize("known", [1, 2, 5])
    def test_first_frames_go_on(self, known):
        given = torch.full((2, known, 1, 4, 4), 10.0)
        made = self.roll(Counter(), 12, given=given)
        assert torch.equal(made[:, :known], given)
        assert torch.allclose(made[0, known:, 0, 0, 0], torch.arange(11.0, 11 + 12 - known))

    def test_a_clip_does_not_depend_on_those_beside_it(self):
        network = Double()
        with torch.no_grad():
            two = roll_out(
                network, ClipSampling(), generators(2), shape=self.shape, num_frames=9, context=3
            )
            one = roll_out(
                network,
                ClipSampling(),
                generators(1),
                shape=(1, *self.shape[1:]),
                num_frames=9,
                context=3,
            )
        assert torch.equal(two[:1], one)
        assert not torch.equal(two[0], two[1])
