import pytest
import torch
from torch import nn

from volano.apps.video.augment import ClipAugmentation
from volano.apps.video.flow import FrameFlow, draw_levels, predict_in_one_step
from volano.apps.video.pixels import PixelScale, doubt, linear_guess, pixel_statistics


class Fixed(nn.Module):
    """A "network" that answers with what it is told, and remembers what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.scale = PixelScale((100.0,), (50.0,))
        self.answer, self.num_classes = answer, 3
        self.asked = {}

    def forward(self, noisy, levels, labels=None):
        self.asked = {"noisy": noisy, "levels": levels, "labels": labels}
        return self.answer(noisy, levels)


def clips(count=64, frames=8, size=8):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, frames, 1, size, size), generator=generator, dtype=torch.uint8)
    return pixels, torch.full((count,), frames), torch.zeros(count, dtype=torch.int64)


@pytest.fixture
def levels():
    torch.manual_seed(0)
    return draw_levels(20_000, 8, 4, torch.device("cpu"))


class TestLevels:
    def test_they_lie_between_noise_and_clean(self, levels):
        assert levels.shape == (20_000, 8)
        assert levels.min() == 0
        assert levels.max() == 1

    def test_half_have_a_clean_prefix_of_any_length(self, levels):
        # Standard errors of shares over 20,000 clips are at most 0.0036; four of them is 0.015.
        prefix = (levels == 1).cumprod(1).sum(1)
        assert (prefix > 0).float().mean() == pytest.approx(0.5, abs=0.015)
        assert set(prefix.tolist()) == set(range(8))
        assert ((levels == 1).sum(1) == prefix).all()  # nothing after the prefix is clean
        # Half of them by rule, and one in seven of the others.
        assert (prefix[prefix > 0] == 4).float().mean() == pytest.approx(0.5 + 0.5 / 7, abs=0.02)

    def test_a_third_is_noise_but_for_the_prefix(self, levels):
        assert (levels[:, -1] == 0).float().mean() == pytest.approx(0.35, abs=0.015)

    def test_half_of_the_rest_share_one_level(self, levels):
        free = levels[levels[:, -1] > 0]
        prefix = (free == 1).sum(1)
        free = free[prefix <= 6]  # where two frames or more are noisy
        shared = free[:, -1] == free[:, -2]
        assert shared.float().mean() == pytest.approx(0.5, abs=0.02)


class TestObjective:
    def test_the_right_answer_costs_nothing(self):
        batch = clips()
        truth = PixelScale((100.0,), (50.0,)).encode(batch[0])
        loss = FrameFlow(num_frames=8, context=4)(Fixed(lambda noisy, levels: truth), batch)
        assert loss.total == 0
        assert 0 < float(loss.weight) < 64 * 8

    def test_only_noisy_frames_count(self):
        batch = clips()
        truth = PixelScale((100.0,), (50.0,)).encode(batch[0])

        def wrong_where_clean(noisy, levels):
            return truth + 7.0 * (levels == 1)[:, :, None, None, None]

        assert FrameFlow(num_frames=8, context=4)(Fixed(wrong_where_clean), batch).total == 0

    def test_it_is_the_mean_squared_error_of_noisy_frames(self):
        batch = clips()
        truth = PixelScale((100.0,), (50.0,)).encode(batch[0])
        model = Fixed(lambda noisy, levels: truth + 2.0)
        loss = FrameFlow(num_frames=8, context=4)(model, batch)
        assert float(loss.total / loss.weight) == pytest.approx(4.0, rel=1e-5)

    def test_clean_frames_are_handed_in_as_they_are(self):
        batch = clips()
        model = Fixed(lambda noisy, levels: noisy)
        FrameFlow(num_frames=8, context=4)(model, batch)
        clean = model.asked["levels"] == 1
        assert clean.any()
        assert torch.equal(model.asked["noisy"][clean], model.scale.encode(batch[0])[clean])
        pure = model.asked["levels"] == 0
        assert model.asked["noisy"][pure].std() == pytest.approx(1.0, abs=0.05)

    def test_the_velocity_weight_is_bounded(self):
        batch = clips()
        truth = PixelScale((100.0,), (50.0,)).encode(batch[0])
        model = Fixed(lambda noisy, levels: truth + 1.0)
        loss = FrameFlow(num_frames=8, context=4, velocity=True)(model, batch)
        levels = model.asked["levels"]
        weights = (1 / (1 - levels).clamp(min=0.1) ** 2)[levels < 1]
        assert float(loss.total) == pytest.approx(float(weights.sum()), rel=1e-4)

    def test_a_tenth_of_the_labels_is_left_out(self):
        batch = clips(count=4000, frames=2, size=2)
        model = Fixed(lambda noisy, levels: noisy)
        torch.manual_seed(0)
        FrameFlow(num_frames=2, context=1, num_classes=3)(model, batch)
        assert (model.asked["labels"] == 3).float().mean() == pytest.approx(0.1, abs=0.02)

    def test_evaluation_predicts_after_the_context(self):
        batch = clips()
        truth = PixelScale((100.0,), (50.0,)).encode(batch[0])
        model = Fixed(lambda noisy, levels: truth + 0.2).eval()  # ten grey levels off
        loss = FrameFlow(num_frames=8, context=3)(model, batch)
        assert model.asked["levels"][0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
        assert float(loss.total / loss.weight) == pytest.approx(0.04, rel=1e-4)
        assert set(loss.metrics) == {"psnr", "psnr_first_frame"}

    def test_prediction_does_not_see_what_follows(self):
        frames = PixelScale((100.0,), (50.0,)).encode(clips()[0])
        model = Fixed(lambda noisy, levels: noisy)
        torch.manual_seed(0)
        first = predict_in_one_step(model, frames, None, 3)
        changed = frames.clone()
        changed[:, 3:] = 99.0
        torch.manual_seed(0)
        assert torch.equal(predict_in_one_step(model, changed, None, 3), first)


class TestPixels:
    def test_bytes_come_back(self):
        scale = PixelScale((10.0, 20.0, 30.0), (5.0, 60.0, 7.0))
        frames = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, -1, -1)
        assert torch.equal(scale.decode(scale.encode(frames)), frames)

    def test_statistics_make_mean_zero_and_deviation_one(self):
        frames, lengths, _ = clips(count=32)
        mean, std = pixel_statistics(frames, lengths)
        encoded = PixelScale(mean, std).encode(frames)
        assert encoded.mean() == pytest.approx(0, abs=1e-3)
        assert encoded.std() == pytest.approx(1, abs=1e-3)

    def test_statistics_are_of_real_frames(self):
        frames, lengths, _ = clips(count=32)
        padded = torch.cat([frames, frames[:, -1:].expand(-1, 24, -1, -1, -1)], 1)
        assert pixel_statistics(padded, lengths) == pixel_statistics(frames, lengths)

    def test_the_guess_is_the_best_linear_one(self):
        generator = torch.Generator().manual_seed(0)
        clean = torch.randn(4, 5, 1, 100, 100, generator=generator)
        levels = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0]).expand(4, -1)
        t = levels[:, :, None, None, None]
        noisy = t * clean + (1 - t) * torch.randn(clean.shape, generator=generator)
        factor = (linear_guess(noisy, levels) / noisy)[0, :, 0, 0, 0]
        best = (noisy * clean).mean((0, 2, 3, 4)) / noisy.square().mean((0, 2, 3, 4))  # least squares
        # Over 40,000 pixels the coefficient's standard error is below 0.005.
        assert factor.tolist() == pytest.approx(best.tolist(), abs=0.02)
        assert factor[0] == 0
        assert factor[-1] == 1
        error = (linear_guess(noisy, levels) - clean).square().mean((0, 2, 3, 4)).sqrt()
        assert doubt(levels)[0, :, 0, 0, 0].tolist() == pytest.approx(error.tolist(), abs=0.02)


class TestAugmentation:
    def batch(self):
        frames = torch.arange(20, dtype=torch.uint8)[None, :, None, None, None].expand(200, -1, 1, 4, 4).clone()
        frames[..., 0] += 100  # the left column is bright
        lengths = torch.tensor([20] * 100 + [12] * 100)
        return frames, lengths, torch.arange(200)

    def test_a_stretch_of_real_frames(self):
        generator = torch.Generator().manual_seed(0)
        frames, lengths, labels = ClipAugmentation(num_frames=8, flip=False)(self.batch(), generator)
        starts = frames[:, 0, 0, 0, 1].int()
        assert frames.shape == (200, 8, 1, 4, 4)
        assert torch.equal(frames[:, :, 0, 0, 1].int(), starts[:, None] + torch.arange(8))
        assert set(starts[:100].tolist()) == set(range(13))
        assert set(starts[100:].tolist()) == set(range(5))
        assert lengths.tolist() == [8] * 200
        assert labels.tolist() == list(range(200))

    def test_mirrored_whole_clips(self):
        generator = torch.Generator().manual_seed(0)
        frames, _, _ = ClipAugmentation(num_frames=20, flip=True)(self.batch(), generator)
        left, right = frames[..., 0] >= 100, frames[..., -1] >= 100
        assert torch.equal(left, ~right)
        assert (left.flatten(1).all(1) | right.flatten(1).all(1)).all()
        assert 60 < left.flatten(1).all(1).sum() < 140

    def test_it_draws_from_the_generator_alone(self):
        make = ClipAugmentation(num_frames=8, flip=True)
        first = make(self.batch(), torch.Generator().manual_seed(5))
        torch.rand(3)
        again = make(self.batch(), torch.Generator().manual_seed(5))
        other = make(self.batch(), torch.Generator().manual_seed(6))
        assert torch.equal(first[0], again[0])
        assert not torch.equal(first[0], other[0])
