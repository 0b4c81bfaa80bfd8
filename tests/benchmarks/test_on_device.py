"""Every benchmark of speed or memory takes ``--device``."""

import sys
from pathlib import Path

import pytest

import on_device

BENCHMARKS = Path(on_device.__file__).parent
# They run where the user's or the package's own choice says, or nothing of theirs is a device's:
# accuracies, data, processes, forms of the code, and what is predicted for devices that are absent.
OTHERS = {
    "budget.py": "limits the memory of a process",
    "cluster_fit.py": "predicts absent devices",
    "denormals.py": "sets the CPU's arithmetic",
    "feed_data.py": "writes data",
    "finetune.py": "compares accuracies",
    "frozen_prefix.py": "compares with the kept prefix on the CPU's bits",
    "fusion.py": "counts bytes of recorded operations",
    "golden_runs.py": "compares bits, which are the CPU's",
    "guard_controls.py": "compares roundings of the CPU",
    "house.py": "counts lines",
    "image_accuracy.py": "compares accuracies",
    "larger_than_memory.py": "limits the memory of a process",
    "memory_cases.py": "holds cases of memory_prediction.py",
    "memory_fit.py": "limits the memory of a process",
    "minutes_kept.py": "shares the machine's cores",
    "muon_dtype.py": "looks for the CPU's units",
    "old_and_new.py": "runs other benchmarks, which take it",
    "on_device.py": "is the option",
    "pack_peers.py": "is a part of pack_speed.py",
    "pack_tasks.py": "holds tasks of packs",
    "planning_tasks.py": "holds tasks of other benchmarks",
    "script_speed.py": "runs scripts as they are",
    "study_peers.py": "is a part of study_time.py",
    "study_quality.py": "compares accuracies",
    "study_time.py": "shares the machine's cores",
    "text_bits.py": "compares accuracies",
    "text_classification.py": "compares accuracies",
    "thread_waits.py": "shares the machine's cores",
    "transformer_steps.py": "counts operations of absent devices",
    "two_ranks.py": "shares the machine's cores",
    "video_prediction.py": "compares accuracies",
    "vision_fit.py": "predicts absent devices",
}


def test_each_takes_a_device_or_has_a_reason():
    for path in BENCHMARKS.glob("*.py"):
        takes = "take_device()" in path.read_text() and path.name != "on_device.py"
        assert takes != (path.name in OTHERS), path.name


@pytest.mark.parametrize(
    ("words", "rest"),
    [
        (["--device", "cpu", "whole", "3"], ["whole", "3"]),
        (["whole", "--device=cpu", "--rounding"], ["whole", "--rounding"]),
        (["whole"], ["whole"]),
    ],
)
def test_the_option_stands_anywhere_and_children_inherit_it(words, rest, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["some.py", *words])
    monkeypatch.setenv(on_device._NAME, "cpu")
    assert on_device.take_device().name == "cpu"
    assert sys.argv[1:] == rest
    assert on_device.baseline().device == "cpu"
    assert on_device.words().startswith("torch ")


def test_a_device_that_is_not_here_is_said(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["some.py", "--device", "nowhere:0"])
    monkeypatch.setenv(on_device._NAME, "cpu")
    with pytest.raises(Exception, match="must be one"):
        on_device.take_device()
