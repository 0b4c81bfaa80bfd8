"""What the classifier of texts says of its runs."""

from pathlib import Path
from types import SimpleNamespace

from volano.apps.application import Finished
from volano.apps.text.classify.application import ClassifyApplication
from volano.apps.text.classify.model_spec import ENCODER


def test_a_summary_says_the_choice():
    run = SimpleNamespace(
        metrics={
            "test_accuracy": 0.75, "num_test": 1234, "baseline_accuracy": 0.5, "kept": "a bag",
            "candidates": {"a bag": 0.8, "a head": 0.7},
        }
    )  # fmt: skip
    assert ClassifyApplication.summary(run) == [
        "test accuracy 0.7500 on 1,234 texts   (95 %: 0.7251 to 0.7734; always the commonest "
        "class: 0.5000)",
        "kept: a bag   (to choose: a bag 0.8000, a head 0.7000)",
    ]
    run.metrics |= {"kept": ENCODER, "candidates": {}}  # named, not chosen
    assert len(ClassifyApplication.summary(run)) == 1


def test_what_can_be_done_next():
    assert ClassifyApplication.next_commands(Path("r")) == [
        "volano eval r",
        "volano predict r FILES...",
    ]


def test_a_stopped_run_is_not_tested():
    application = object.__new__(ClassifyApplication)
    assert application.finish(SimpleNamespace(status="stopped"), None) == Finished()
