"""PSNR, SSIM and the distances beside independent ways to compute them."""

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st

from volano.apps.video import quality
from volano.apps.video.quality import MOST_PSNR, copy_last, frame_psnr, frame_ssim, mean_frame
from volano.apps.video.scoring import distances
from volano.apps.video.scoring.distances import frechet_distance, kernel_distance, nearest_distances


def pair(channels=1, size=32, noise=20):
    """Smooth pictures and noisy ones, uint8 [2, 3, C, S, S]."""
    generator = np.random.default_rng(0)
    smooth = (
        scipy.ndimage.gaussian_filter(generator.random((2, 3, channels, size, size)) * 255 * 4, (0, 0, 0, 3, 3)) % 255
    )
    real = smooth.astype(np.uint8)
    predicted = np.clip(real + generator.normal(0, noise, real.shape), 0, 255).astype(np.uint8)
    return torch.from_numpy(predicted), torch.from_numpy(real)


def ssim_by_scipy(x, y):
    """Of two grey pictures: Wang et al. 2004 with scipy's Gaussian filter, cut to where the window lies inside."""

    def blur(values):
        return scipy.ndimage.gaussian_filter(values, 1.5, radius=5)[5:-5, 5:-5]

    x, y = x.astype(np.float64) / 255, y.astype(np.float64) / 255
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    return (((2 * mx * my + 0.01**2) * (2 * cov + 0.03**2)) / ((mx**2 + my**2 + 0.01**2) * (vx + vy + 0.03**2))).mean()


class TestPsnr:
    def test_against_numpy(self):
        predicted, real = pair()
        errors = ((predicted.numpy() / 255.0 - real.numpy() / 255.0) ** 2).mean((2, 3, 4))
        assert frame_psnr(predicted, real).numpy() == pytest.approx(-10 * np.log10(errors), rel=1e-5)

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
        assert torch.equal(mean_frame(frames, full), frames.double().mean((0, 1)).round().to(torch.uint8))
        monkeypatch.setattr(quality, "_MOST_BYTES", 1)  # a clip at a time
        assert torch.equal(mean_frame(frames, full), frames.double().mean((0, 1)).round().to(torch.uint8))

    def test_mean_frame_without_padding(self):
        frames = torch.tensor([[0, 0, 0], [90, 200, 200]], dtype=torch.uint8)[:, :, None, None, None]
        assert mean_frame(frames, torch.tensor([2, 1])).item() == 30


def features(count, shift=0.0, dim=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(9))
    return torch.randn(count, dim, generator=generator) @ mixing + shift


class TestFrechet:
    def test_against_scipys_square_root(self):
        x, y = features(80).double().numpy(), features(90, shift=0.7, seed=1).double().numpy() * 1.3
        cx, cy = np.cov(x.T), np.cov(y.T)
        root = scipy.linalg.sqrtm(cx @ cy).real
        wanted = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy - 2 * root)
        assert frechet_distance(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(wanted, rel=1e-8)

    def test_known_values(self):
        x = features(200)
        assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
        assert frechet_distance(x, x + 2.0) == pytest.approx(6 * 4.0, rel=1e-5)
        # Along one dimension: (mean difference)^2 + (deviation difference)^2.
        one = torch.linspace(-1, 1, 100)[:, None]
        assert frechet_distance(one, 3 * one) == pytest.approx(4 * float(one.double().var()), rel=1e-6)

    def test_fewer_clips_than_features(self):
        distance = frechet_distance(features(4), features(4, seed=1))
        assert np.isfinite(distance)
        assert distance >= 0

    @given(st.integers(2, 30), st.floats(-2, 2))
    def test_it_is_symmetric(self, count, shift):
        x, y = features(count), features(count + 3, shift=shift, seed=1)
        assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-6, abs=1e-9)


class TestKernel:
    @staticmethod
    def by_loops(x, y, unbiased):
        x, y = x.double().numpy(), y.double().numpy()

        def kernel(a, b):
            return (a @ b / len(a) + 1) ** 3

        def within(z):
            pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if not (unbiased and i == j)]
            return sum(kernel(z[i], z[j]) for i, j in pairs) / len(pairs)

        between = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
        return within(x) + within(y) - 2 * between

    @pytest.mark.parametrize("unbiased", [True, False])
    def test_against_loops(self, unbiased):
        x, y = features(12), features(15, shift=0.3, seed=1)
        assert kernel_distance(x, y, unbiased=unbiased) == pytest.approx(self.by_loops(x, y, unbiased), rel=1e-9)

    def test_the_unbiased_one_is_zero_on_average_between_equal_sources(self):
        values = [kernel_distance(features(40, seed=2 * n), features(40, seed=2 * n + 1)) for n in range(60)]
        biased = [kernel_distance(features(40, seed=n), features(40, seed=n + 99), unbiased=False) for n in range(20)]
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
        assert min(biased) > 0


@pytest.mark.parametrize("clips_at_once", [1, 7, 10_000])
def test_nearest_distances(monkeypatch, clips_at_once):
    monkeypatch.setattr(distances, "_MOST_BYTES", clips_at_once * 4 * 4 * 36)
    generator = torch.Generator().manual_seed(0)
    train = torch.randint(0, 256, (300, 4, 1, 6, 6), generator=generator, dtype=torch.uint8)
    clips = torch.cat([train[7:8], train[100:101] // 2, 255 - train[3:4]])
    wanted = [(train.double() - clip.double()).square().mean((1, 2, 3, 4)).min().sqrt().item() for clip in clips]
    assert nearest_distances(clips, train).tolist() == pytest.approx(wanted, abs=0.05)
    assert nearest_distances(clips, train)[0] < 0.05
