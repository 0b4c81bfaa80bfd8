"""The ruler for generated clips, and that its self-test can fail."""

import pytest
import torch

from volano.apps.video.pixels import PixelScale, pixel_statistics
from volano.apps.video.scoring import judge as judge_module
from volano.apps.video.scoring.distances import frechet_distance
from volano.apps.video.scoring.features import (
    PRETEXTS,
    FeatureNet,
    blurred,
    features_of,
    frozen,
    pretext_accuracy,
    shuffled,
    tamper,
    train_feature_net,
)
from volano.apps.video.scoring.judge import Judge, memorization
from volano.apps.video.scoring.scores import generation_scores
from volano.data.sources import bouncing_digits
from volano.device import Device


@pytest.fixture(scope="module")
def device():
    return Device("cpu")


@pytest.fixture(scope="module")
def sets():
    return bouncing_digits()


@pytest.fixture(scope="module")
def net(sets, device):
    torch.set_num_threads(1)
    scale = PixelScale(*pixel_statistics(sets.train.frames, sets.train.lengths))
    return train_feature_net(sets.train.frames[:1000], scale, device, num_steps=80, seed=0)


@pytest.fixture(scope="module")
def judge(net, sets, device):
    return Judge(net, sets.train.frames[:600], sets.test.frames[:128], device)


class TestTampering:
    clip = torch.arange(8, dtype=torch.uint8).view(1, 8, 1, 1, 1).expand(1, 8, 1, 6, 6) * 10

    def moments(self, frames):
        return (frames[0, :, 0, 3, 3] // 10).tolist()

    def test_each_kind(self):
        generator = torch.Generator().manual_seed(0)
        kinds = {
            name: self.moments(tamper(self.clip, torch.tensor([number]), generator))
            for number, name in enumerate(PRETEXTS)
        }
        assert kinds["as it is"] == list(range(8))
        assert kinds["backwards"] == list(range(7, -1, -1))
        assert sorted(kinds["shuffled"]) == list(range(8)) != kinds["shuffled"]
        assert kinds["half speed"] == [0, 0, 1, 1, 2, 2, 3, 3]

    def test_spoiled_sets(self):
        generator = torch.Generator().manual_seed(0)
        assert self.moments(frozen(self.clip)) == [0] * 8
        assert sorted(self.moments(shuffled(self.clip, generator))) == list(range(8))
        edge = torch.zeros(1, 1, 1, 6, 6, dtype=torch.uint8)
        edge[..., 3:] = 90
        assert blurred(edge)[0, 0, 0, 2].tolist() == [0, 0, 30, 60, 90, 90]


class TestFeatureNet:
    def test_it_learns_its_pretexts(self, net, sets, device):
        assert pretext_accuracy(net, sets.test.frames, device, seed=0) > 0.45  # guessing scores 0.2

    def test_it_is_a_function_of_its_arguments(self, sets, device):
        scale = PixelScale((20.0,), (50.0,))
        state = torch.get_rng_state()
        one = train_feature_net(sets.train.frames[:100], scale, device, num_steps=2, seed=3)
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(5)
        two = train_feature_net(sets.train.frames[:100], scale, device, num_steps=2, seed=3)
        other = train_feature_net(sets.train.frames[:100], scale, device, num_steps=2, seed=4)
        few = sets.test.frames[:4]
        assert torch.equal(features_of(one, few, device), features_of(two, few, device))
        assert not torch.equal(features_of(one, few, device), features_of(other, few, device))


class TestSelfTest:
    def test_it_passes_on_the_sample(self, judge):
        result = judge.self_test(seed=0)
        assert result.passed, result.reason
        for ratios in (result.frechet, result.kernel):
            assert min(ratios[kind] for kind in ("frozen", "shuffled", "blurred")) > ratios["real"] >= 1

    def test_a_spoiled_set_that_is_real_fails_it(self, judge, sets):
        result = judge.self_test_on({"frozen": sets.train.frames[:128]}, seed=0)
        assert not result.passed
        assert result.reason == "frozen clips are not farther by the frechet distance than real ones"

    @pytest.mark.parametrize("name", ["frechet_distance", "biased_kernel_distance"])
    def test_a_distance_that_is_no_number_fails_it(self, judge, monkeypatch, name):
        monkeypatch.setattr(judge_module, name, lambda x, y: float("nan"))
        result = judge.self_test(seed=0)
        assert not result.passed
        assert result.reason.startswith("frozen clips are not farther by the ")

    def test_a_net_that_learned_nothing_fails_it(self, sets, device):
        torch.manual_seed(0)
        untrained = FeatureNet(channels=1, scale=PixelScale((20.0,), (50.0,))).eval()
        result = Judge(untrained, sets.train.frames[:600], sets.test.frames[:128], device).self_test(seed=0)
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
        result = Judge(blind.eval(), sets.train.frames[:600], sets.test.frames[:128], device).self_test(seed=0)
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
