"""Final figures of clips in words and files, and what they say when something is missing."""

import re
from types import SimpleNamespace

import pytest
import torch

from apps.video.specs import SPEC
from volano.apps.video.scoring.features import FeatureNet
from volano.apps.video.scoring.figures import (
    DEFAULT_GUIDANCE,
    _num_compared,
    _spread,
    _written,
    distances_in_words,
    figures_of,
    load_features,
    sampling_for_figures,
)
from volano.device import Device
from volano.errors import CheckpointError, RunError
from volano.training import RunFolder, save_weights

RULER = {"frechet": {"real": 1.1, "frozen": 5.0, "blurred": 7.25}, "reason": None, "passed": True}


def words(**fields):
    known = {
        "frechet_ratio": 2.5,
        "kernel_ratio": 3.5,
        "self_test_passed": True,
        "self_test": RULER,
    }
    return distances_in_words({**known, **fields})


class TestWords:
    def test_ratios_and_the_ruler(self):
        assert words() == [
            "generated clips are 2.5 times as far from test clips as training clips are",
            "  (Frechet; by the kernel distance 3.5; self-test passed)",
            "  spoiled real clips: frozen 5.0, blurred 7.2; untouched ones at most 1.1 (Frechet)",
        ]

    def test_without_a_ruler_the_ratios_stand_alone(self):
        assert len(words(self_test=None)) == 2

    def test_a_ruler_that_failed_says_why(self):
        failed = {**RULER, "reason": "no net tells them apart"}
        lines = words(frechet_ratio=None, self_test_passed=False, self_test=failed)
        assert "the self-test FAILED" in lines[0]
        assert lines[-1] == "  no net tells them apart"

    def test_nothing_was_measured(self):
        assert words(self_test_passed=None) == []


def test_public_figures_are_those_of_the_first_frame():
    result = {
        "psnr": [20.0, 10.0], "ssim": [0.9, 0.1], "num_clips": 4,
        "baselines": {"copy_last": {"psnr": [15.0, 5.0]}},
    }  # fmt: skip
    assert figures_of(result) == {
        "psnr_first_frame": 20.0, "psnr_baselines": {"copy_last": 15.0}, "ssim_first_frame": 0.9,
        "frechet_ratio": None, "kernel_ratio": None, "self_test_passed": None, "num_test": 4,
    }  # fmt: skip
    assert figures_of({**result, "self_test": {"passed": False}})["self_test_passed"] is False


def test_classes_guide_the_clips_of_the_figures():
    assert sampling_for_figures(SPEC).guidance == DEFAULT_GUIDANCE
    assert sampling_for_figures(SimpleNamespace(classes=())).guidance == 1.0


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), r"x.gif is missing: \[Errno 28\] No space left"),
        (RunError("No encoder"), "x.gif is missing: No encoder"),
        (KeyError("codec"), "x.gif is missing: KeyError: 'codec'"),
    ],
)
def test_a_file_that_cannot_be_written_is_a_notice(tmp_path, error, told):
    def fails(_path):
        raise error

    (notice,) = _written(tmp_path / "x.gif", fails)
    assert re.match(told, notice)


def test_a_file_that_was_written_says_what_it_has_to(tmp_path):
    assert _written(tmp_path / "x.gif", lambda path: path.write_text("x")) == []
    assert _written(tmp_path / "x.gif", lambda _: "it is cut") == ["it is cut"]


def test_sets_that_are_compared_are_of_one_size():
    application = SimpleNamespace(sets=SimpleNamespace(train=range(400)))
    assert _num_compared(application, range(50), 128) == 50
    assert _num_compared(application, range(500), 128) == 400 // 4
    assert _num_compared(application, range(500), 60) == 60
    assert _spread(torch.arange(10), 3).tolist() == [0, 4, 9]


class TestFeatures:
    def test_there_may_be_none(self, tmp_path):
        assert load_features(RunFolder(tmp_path), SPEC, Device("cpu")) is None

    def test_they_come_back(self, tmp_path):
        net = FeatureNet(channels=SPEC.channels, scale=SPEC.scale)
        save_weights(net, tmp_path / "feature-net.safetensors")
        found = load_features(RunFolder(tmp_path), SPEC, Device("cpu"))
        for name, value in net.state_dict().items():
            assert torch.equal(found.state_dict()[name], value)
        assert not found.training

    def test_a_damaged_file_is_told(self, tmp_path):
        (tmp_path / "feature-net.safetensors").write_bytes(b"x")
        with pytest.raises(
            CheckpointError, match="feature-net.safetensors of a run must be readable"
        ):
            load_features(RunFolder(tmp_path), SPEC, Device("cpu"))
