"""PSNR, SSIM and the distances beside independent ways to compute them."""

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import torch

from volano.apps.video import quality
from volano.apps.video.quality import MOST_PSNR, copy_last, frame_psnr, frame_ssim, mean_frame


def pair(channels=1, size=32, noise=20):
    """Smooth pictures and noisy ones, uint8 [2, 3, C, S, S]."""
    generator = np.random.default_rng(0)
    smooth = (
        scipy.ndimage.gaussian_filter(
            generator.random((2, 3, channels, size, size)) * 255 * 4, (0, 0, 0, 3, 3)
        )
        % 255
    )
    real = smooth.astype(np.uint8)
    predicted = np.clip(real + generator.normal(0, noise, real.shape), 0, 255).astype(np.uint8)
    return torch.from_numpy(predicted), torch.from_numpy(real)


def ssim_by_scipy(x, y):
    """Of two grey pictures: Wang et al. 2004 with scipy's Gaussian filter, cut to where the window
    lies inside."""

    def blur(values):
        return scipy.ndimage.gaussian_filter(values, 1.5, radius=5)[5:-5, 5:-5]

    x, y = x.astype(np.float64) / 255, y.astype(np.float64) / 255
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    return (
        ((2 * mx * my + 0.01**2) * (2 * cov + 0.03**2))
        / ((mx**2 + my**2 + 0.01**2) * (vx + vy + 0.03**2))
    ).mean()


class TestPsnr:
    def test_against_numpy(self):
        predicted, real = pair()
        errors = ((predicted.numpy() / 255.0 - real.numpy() / 255.0) ** 2).mean((2, 3, 4))
        assert frame_psnr(predicted, real).numpy() == pytest.approx(
            -10 * np.log10(errors), rel=1e-5
        )

    def test_known_values(self):
        black = torch.zeros(1, 1, 1, 4, 4, dtype=torch.uint8)
        assert frame_psnr(black, black).item() == MOST_PSNR
        assert frame_psnr(black, black + 255).item() == pytest.approx(0, abs=1e-5)


class TestSsim:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_against_scipy(self, channels):
        predicted, real = pair(channels)
        ours = frame_ssim(predicted, real).numpy()
        for clip in range(2):
            for frame in range(3):
                theirs = [
                    ssim_by_scipy(predicted[clip, frame, c].numpy(), real[clip, frame, c].numpy())
                    for c in range(channels)
                ]
                assert ours[clip, frame] == pytest.approx(np.mean(theirs), abs=2e-5)

    def test_known_values(self):
        predicted, real = pair()
        assert frame_ssim(real, real).min() == pytest.approx(1.0, abs=1e-5)
        assert frame_ssim(predicted, real).max() < 0.95
        assert frame_ssim(255 - real, real).max() < 0

    def test_frames_smaller_than_the_window(self):
        predicted, real = pair(size=8)
        assert frame_ssim(real, real).min() == pytest.approx(1.0, abs=1e-5)
        assert frame_ssim(predicted, real).shape == (2, 3)


class TestTrivial:
    def test_copy_last(self):
        clips = torch.arange(6, dtype=torch.uint8).view(1, 6, 1, 1, 1).expand(2, -1, 1, 4, 4)
        copied = copy_last(clips, 4)
        assert copied.shape == (2, 2, 1, 4, 4)
        assert (copied == 3).all()

    def test_mean_frame(self, monkeypatch):
        frames, full = pair()[0], torch.tensor([3, 3])
        assert torch.equal(
            mean_frame(frames, full), frames.double().mean((0, 1)).round().to(torch.uint8)
        )
        monkeypatch.setattr(quality, "_MOST_BYTES", 1)  # a clip at a time
        assert torch.equal(
            mean_frame(frames, full), frames.double().mean((0, 1)).round().to(torch.uint8)
        )

    def test_mean_frame_without_padding(self):
        frames = torch.tensor([[0, 0, 0], [90, 200, 200]], dtype=torch.uint8)[
            :, :, None, None, None
        ]
        assert mean_frame(frames, torch.tensor([2, 1])).item() == 30
