"""Options that several commands share."""

import pytest

from volano import Plan
from volano.cli import options as opt
from volano.cli.options import KNOBS, forbidden
from volano.errors import VolanoError


def test_every_pin_is_a_knob_of_a_plan():
    assert set(KNOBS) <= set(Plan.baseline().to_json())
    assert not {"device", "forbid", "budget"} & set(KNOBS)


def test_values_of_one_knob_are_collected():
    found = forbidden(["precision=bf16", "compile=true", "precision=fp16", "threads=2"])
    assert found == {"precision": ("bf16", "fp16"), "compile": (True,), "threads": (2,)}
    assert forbidden([]) == {}


@pytest.mark.parametrize("setting", ["precision", "=bf16", "speed=1", ""])
def test_what_is_no_setting_is_refused(setting):
    with pytest.raises(VolanoError):
        forbidden([setting])


def test_templates_do_nothing():
    assert opt.budget_options() is opt.run_options() is opt.shared_options() is None


def test_the_knobs_stand_between_the_device_and_the_budget():
    names = [parameter.name for parameter in opt.plan_options()]
    assert names == ["device", *KNOBS, "forbid", "budget"]
