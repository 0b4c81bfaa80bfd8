import pickle

import pytest

from volano import errors


def test_an_error_states_rule_value_and_remedy():
    error = errors.TaskError("batch_size is above 0", got=-1, remedy="Take 32")
    assert str(error) == "batch_size is above 0; got -1. Take 32."


@pytest.mark.parametrize(
    ("remedy", "said"),
    [
        ("Take 32", "Take 32."),
        ("Take 32.", "Take 32."),
        ("Name another than ..", "Name another than .."),
        ("Continue it: volano resume runs/image-1", "Continue it: volano resume runs/image-1"),
        ("volano resume ..", "volano resume .."),
        ("pip install 'volano[onnx]'", "pip install 'volano[onnx]'"),
        ("Keep it, with volano run; or take another", "Keep it, with volano run; or take another."),
        ("Let `volano explain` find it again", "Let `volano explain` find it again."),
    ],
)
def test_a_command_is_pasted_without_a_full_stop(remedy, said):
    assert str(errors.TaskError("rule", remedy=remedy)) == f"rule. {said}"


def test_exit_codes_tell_usage_from_failure():
    assert errors.TaskError("x").exit_code == errors.PlanError("x").exit_code == 2
    assert errors.DataError("x").exit_code == errors.CheckpointError("x").exit_code == 1


@pytest.mark.parametrize("kind", [errors.DataError, errors.ObjectiveError])
def test_an_error_travels_between_processes(kind):
    error = kind("rule", got="value", remedy="remedy")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (back.rule, back.got, back.remedy) == ("rule", "value", "remedy")


@pytest.mark.parametrize(
    ("error", "first", "reason"),
    [
        (ValueError("\n  one \ntwo"), "one", "ValueError: one"),
        (KeyError(), "KeyError", "KeyError"),
        (OSError(" "), "OSError", "OSError"),
        (
            OSError("backend raised:\nKeyError: 1\n2"),
            "backend raised: KeyError: 1",
            "OSError: backend raised: KeyError: 1",
        ),
        (ValueError("x" * 999), "x" * 999, "ValueError: " + "x" * 999),
    ],
)
def test_of_what_an_exception_says_the_first_line_is_told(error, first, reason):
    assert (errors.first_line(error), errors.reason_of(error)) == (first, reason)


def test_who_called_is_noted_on_an_exception_that_is_none_of_volanos():
    error = ValueError("x")
    errors.note_caller(error, "the task's optimizer")
    errors.note_caller(error, "somebody else")
    assert errors.noted_caller(error) == "the task's optimizer"
    assert errors.noted_caller(KeyError()) is None
