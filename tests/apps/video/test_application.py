"""What the video application says, and does with a run that was stopped."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from volano.apps.application import Finished
from volano.apps.video.application import VideoApplication


@pytest.mark.parametrize(("is_held_out", "which"), [(True, "held-out"), (False, "test")])
def test_a_summary_stands_beside_trivial_answers(is_held_out, which):
    run = SimpleNamespace(
        metrics={
            "psnr_first_frame": 21.234, "psnr_baselines": {"copy_last": 18.0, "mean_frame": 15.5},
            "num_test": 1234, "self_test_passed": None,
        },
        details={"is_held_out": is_held_out, "self_test": None},
    )  # fmt: skip
    assert VideoApplication.summary(run) == [
        f"first predicted frame 21.23 dB   (copy last 18.00, mean frame 15.50; 1,234 {which} clips)"
    ]


def test_a_stopped_run_is_not_tested():
    application = object.__new__(VideoApplication)
    found = application.finish(SimpleNamespace(status="stopped"), None)
    assert found == Finished(details={"self_test": None})


def test_what_can_be_done_next():
    assert VideoApplication.next_commands(Path("r")) == [
        "volano eval r",
        "volano generate r --clips 16",
    ]
