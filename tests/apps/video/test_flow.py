import pytest
import torch
from torch import nn

from volano.apps.video.flow import FrameFlow, draw_levels, predict_in_one_step
from volano.apps.video.pixels import PixelScale


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
    pixels = torch.randint(
        0, 256, (count, frames, 1, size, size), generator=generator, dtype=torch.uint8
    )
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
