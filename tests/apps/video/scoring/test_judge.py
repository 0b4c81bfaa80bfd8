"""The ruler for generated clips, and that its self-test can fail."""

import pytest
import torch

from volano.apps.video.pixels import PixelScale
from volano.apps.video.scoring import judge as judge_module
from volano.apps.video.scoring.distances import frechet_distance
from volano.apps.video.scoring.features import FeatureNet
from volano.apps.video.scoring.judge import Judge, memorization
from volano.apps.video.scoring.scores import generation_scores


@pytest.fixture(scope="module")
def judge(net, sets, device):
    return Judge(net, sets.train.frames[:600], sets.test.frames[:128], device)


class TestSelfTest:
    def test_it_passes_on_the_sample(self, judge):
        result = judge.self_test(seed=0)
        assert result.passed, result.reason
        for ratios in (result.frechet, result.kernel):
            assert (
                min(ratios[kind] for kind in ("frozen", "shuffled", "blurred"))
                > ratios["real"]
                >= 1
            )

    def test_a_spoiled_set_that_is_real_fails_it(self, judge, sets):
        result = judge.self_test_on({"frozen": sets.train.frames[:128]}, seed=0)
        assert not result.passed
        assert (
            result.reason == "frozen clips are not farther by the frechet distance than real ones"
        )

    @pytest.mark.parametrize("name", ["frechet_distance", "biased_kernel_distance"])
    def test_a_distance_that_is_no_number_fails_it(self, judge, monkeypatch, name):
        monkeypatch.setattr(judge_module, name, lambda x, y: float("nan"))
        result = judge.self_test(seed=0)
        assert not result.passed
        assert result.reason.startswith("frozen clips are not farther by the ")

    def test_a_net_that_learned_nothing_fails_it(self, sets, device):
        torch.manual_seed(0)
        untrained = FeatureNet(channels=1, scale=PixelScale((20.0,), (50.0,))).eval()
        result = Judge(
            untrained, sets.train.frames[:600], sets.test.frames[:128], device
        ).self_test(seed=0)
        assert not result.passed
        assert "the feature net tells" in result.reason

    @pytest.mark.parametrize("passed", [True, False])
    def test_without_it_ratios_are_no_figures(self, judge, sets, device, passed):
        if not passed:
            torch.manual_seed(0)
            untrained = FeatureNet(channels=1, scale=PixelScale((20.0,), (50.0,))).eval()
            judge = Judge(untrained, sets.train.frames[:600], sets.test.frames[:128], device)
        scores = generation_scores(sets.train.frames[2000:2128], judge, seed=0)
        assert scores["self_test"]["passed"] == passed
        figures = {name: scores[name] for name in ("frechet_ratio", "kernel_ratio")}
        assert (scores["rejected"] is None) == passed
        assert all(value > 0 for value in (figures if passed else scores["rejected"]).values())
        assert passed or set(figures.values()) == {None}

    def test_a_net_that_is_blind_fails_it(self, net, sets, device):
        class Blind(FeatureNet):
            def features(self, frames):
                return super().features(frames) * 0

        blind = Blind(channels=1, scale=net.scale)
        blind.load_state_dict(net.state_dict())
        result = Judge(
            blind.eval(), sets.train.frames[:600], sets.test.frames[:128], device
        ).self_test(seed=0)
        assert not result.passed

    def test_ratios_are_around_one_for_real_clips_and_larger_for_noise(self, judge, sets):
        assert 0.3 < judge.ratio(sets.train.frames[2000:2128], frechet_distance) < 3
        noise = torch.randint(0, 256, (128, 16, 1, 32, 32), dtype=torch.uint8)
        assert judge.ratio(noise, frechet_distance) > 10


def test_memorization_tells_copies(sets):
    train, test = sets.train.frames[:500], sets.test.frames[:32]
    distances = memorization(train[:32], test, train)
    assert distances["generated"] < 0.05 < 5 < distances["test"]
    assert distances["smallest_generated"] < 0.05
