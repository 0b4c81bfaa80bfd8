"""What the image application says, and does with a run that was stopped."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from volano.apps.application import Finished
from volano.apps.image.application import ImageApplication
from volano.apps.image.model_spec import ClassifierSpec
from volano.apps.image.options import ImageOptions
from volano.training import RunFolder


@pytest.fixture(scope="module")
def application():
    return ImageApplication.read(ImageOptions(flip="no"))


@pytest.mark.parametrize(("is_held_out", "where"), [(True, "held-out test"), (False, "test")])
def test_a_summary_stands_beside_the_trivial_answer(is_held_out, where):
    run = SimpleNamespace(
        metrics={"test_accuracy": 0.98765, "num_test": 1234, "baseline_accuracy": 0.1},
        details={"is_held_out": is_held_out},
    )
    (line,) = ImageApplication.summary(run)
    assert line.startswith(f"test accuracy 0.9877 on 1,234 {where} ")
    assert line.endswith("; always the commonest class: 0.1000)")


def test_what_can_be_done_next():
    commands = ImageApplication.next_commands(Path("runs/1"))
    assert [command.split()[1] for command in commands] == ["eval", "predict", "export"]


def test_a_new_run_knows_its_classifier(application, tmp_path):
    folder = RunFolder(tmp_path)
    application.write(folder, None)
    assert ClassifierSpec.from_json(folder.read_json("image.json")) == application.spec


def test_a_stopped_run_is_not_tested_and_has_its_samples(application, tmp_path):
    run = SimpleNamespace(path=tmp_path, status="stopped")
    assert application.finish(run, None) == Finished()
    samples = load_file(tmp_path / "samples.safetensors")
    assert samples["images"].shape[1:] == (1, 8, 8)
    assert len(samples["images"]) == len(samples["labels"]) == 64
