"""Distances between sets of clips beside independent ways to compute them."""

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st

from volano.apps.video.scoring import distances
from volano.apps.video.scoring.distances import frechet_distance, kernel_distance, nearest_distances


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
        assert frechet_distance(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(
            wanted, rel=1e-8
        )

    def test_known_values(self):
        x = features(200)
        assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
        assert frechet_distance(x, x + 2.0) == pytest.approx(6 * 4.0, rel=1e-5)
        # Along one dimension: (mean difference)^2 + (deviation difference)^2.
        one = torch.linspace(-1, 1, 100)[:, None]
        assert frechet_distance(one, 3 * one) == pytest.approx(
            4 * float(one.double().var()), rel=1e-6
        )

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
            pairs = [
                (i, j) for i in range(len(z)) for j in range(len(z)) if not (unbiased and i == j)
            ]
            return sum(kernel(z[i], z[j]) for i, j in pairs) / len(pairs)

        between = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
        return within(x) + within(y) - 2 * between

    @pytest.mark.parametrize("unbiased", [True, False])
    def test_against_loops(self, unbiased):
        x, y = features(12), features(15, shift=0.3, seed=1)
        assert kernel_distance(x, y, unbiased=unbiased) == pytest.approx(
            self.by_loops(x, y, unbiased), rel=1e-9
        )

    def test_the_unbiased_one_is_zero_on_average_between_equal_sources(self):
        values = [
            kernel_distance(features(40, seed=2 * n), features(40, seed=2 * n + 1))
            for n in range(60)
        ]
        biased = [
            kernel_distance(features(40, seed=n), features(40, seed=n + 99), unbiased=False)
            for n in range(20)
        ]
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
        assert min(biased) > 0


@pytest.mark.parametrize("clips_at_once", [1, 7, 10_000])
def test_nearest_distances(monkeypatch, clips_at_once):
    monkeypatch.setattr(distances, "_MOST_BYTES", clips_at_once * 4 * 4 * 36)
    generator = torch.Generator().manual_seed(0)
    train = torch.randint(0, 256, (300, 4, 1, 6, 6), generator=generator, dtype=torch.uint8)
    clips = torch.cat([train[7:8], train[100:101] // 2, 255 - train[3:4]])
    wanted = [
        (train.double() - clip.double()).square().mean((1, 2, 3, 4)).min().sqrt().item()
        for clip in clips
    ]
    assert nearest_distances(clips, train).tolist() == pytest.approx(wanted, abs=0.05)
    assert nearest_distances(clips, train)[0] < 0.05
