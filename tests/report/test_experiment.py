"""What was trained and how, in words."""

from report.folders import make_run, write
from volano.plan import Plan
from volano.record.format import NOTHING
from volano.record.read_run import read_run
from volano.report.experiment import (
    knobs_of,
    network_shown,
    phases_of,
    setting_text,
    task_rows,
    task_sentence,
)


def record_of(path, **changes):
    return read_run(make_run(path, "image", **changes))


def test_the_task_is_a_sentence(tmp_path):
    assert task_sentence(record_of(tmp_path / "run")) == (
        "Image classification: Network with 1,234,567 parameters, trained on 4,096 examples of "
        "bars (three classes) "
        "for 400 steps of 64 examples. 512 examples kept apart to measure it."
    )


def test_the_length_is_the_last_that_was_revised(tmp_path):
    revisions = [{"num_steps": 500, "step": 9}, {"num_steps": 320, "step": 200}]
    assert "for 320 steps" in task_sentence(record_of(tmp_path / "run", revisions=revisions))
    odd = [{"num_steps": "many"}]
    assert "for 400 steps" in task_sentence(record_of(tmp_path / "odd", revisions=odd))


def test_the_network_is_shown_by_part_with_what_keeping_saved(tmp_path):
    parts = [
        {"name": "trunk", "module": "Trunk", "parameters": 1200, "trained": 0},
        {"name": "head", "module": "Linear", "parameters": 34, "trained": 34},
    ]
    planned = ("what 3 of 4 layers compute is kept", "that saves 9 s of the run, predicted")
    assert network_shown(record_of(tmp_path / "old")) is None
    record = record_of(tmp_path / "run", network=parts)
    assert network_shown(record, planned).facts == planned
    record = record_of(
        tmp_path / "kept", network=parts, prefix={"num_taken_up": 640, "saved_seconds": 7.0}
    )
    found = network_shown(record, planned)
    assert found.rows == (
        ("trunk", "Trunk", "1,200", "frozen"),
        ("head", "Linear", "34", "all"),
        ("together", "", "1,234", "34"),
    )
    assert found.facts == (planned[0], "measured: that saved 7.0 s, with 640 examples used again")


def test_options_that_were_given_stand_among_its_rows(tmp_path):
    rows = dict(
        task_rows(
            record_of(
                tmp_path / "run", source={"kind": "image", "dials": {"seed": 0, "path": None}}
            )
        )
    )
    assert rows["Options"] == "seed 0"
    assert rows["Evaluated every"] == "100 steps"


def test_knobs_that_differ_come_first_and_unknown_ones_are_told(tmp_path):
    record = record_of(tmp_path / "run")
    write(record.path / "plan.json", {**Plan(precision="bf16").to_json(), "of_later": 3})
    first, *others = knobs_of(read_run(record.path))
    assert (first.name, first.value, first.baseline, first.semantics) == (
        "precision",
        "bf16",
        "fp32",
        "precision",
    )
    assert not any(knob.is_changed for knob in others)
    assert [knob.semantics for knob in others if knob.name == "of_later"] == ["not known"]
    assert [setting_text(value) for value in (None, True, False, 1, "x")] == [
        NOTHING,
        "yes",
        "no",
        "1",
        "x",
    ]


def test_phases_add_up_to_the_whole(tmp_path):
    phases = phases_of(record_of(tmp_path / "run"))
    assert [phase.name for phase in phases] == [
        "data",
        "plan",
        "train",
        "evaluate",
        "test",
        "other",
    ]
    assert abs(sum(phase.percent for phase in phases) - 100) < 0.1
    assert phases_of(record_of(tmp_path / "none", seconds={"train": "long"})) == []
