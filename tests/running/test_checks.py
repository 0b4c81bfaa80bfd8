"""What the applications' verbs check and name in the same way."""

import pytest

from volano.errors import CheckpointError, UsageError
from volano.running.checks import check_begun, check_data_is_there, check_ended, evaluation_name
from volano.training import RunFolder


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("other/words.txt", "words"),
        ("test.csv", "other-test"),
        ("data/test", "other-test"),
        ("Test/", "other-Test"),
        ("tests", "tests"),
        ("/", "data"),
    ],
)
def test_evaluations_do_not_replace_the_runs_own(path, name):
    assert evaluation_name(path) == name


def test_a_name_of_255_bytes_leaves_room_for_what_stands_around_it():
    first, second = (evaluation_name("\u00e9" * 120 + end) for end in ("a.csv", "b.csv"))
    assert len(first.encode()) <= 200
    assert first[:90] == "\u00e9" * 90
    assert first != second  # what differs at the end alone is not written over


def test_a_folder_that_one_stands_in_has_a_name(tmp_path, monkeypatch):
    (tmp_path / "clips" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "clips")
    assert evaluation_name(".") == "clips"
    assert evaluation_name("sub/..") == "clips"


def test_what_was_killed_before_it_began_is_said(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.make()
    with pytest.raises(UsageError, match="must have begun; got .*while it was being prepared"):
        check_begun(folder)
    folder.update_run(status="running")
    check_begun(folder)
    folder.release()


def test_what_a_run_needs(tmp_path):
    with pytest.raises(
        UsageError, match="The texts of the run must be where they were; got .*gone"
    ):
        check_data_is_there(tmp_path / "nowhere", "texts")
    check_data_is_there(None, "texts")
    with pytest.raises(
        CheckpointError, match="must hold model.safetensors; got none in .*volano resume"
    ):
        check_ended(RunFolder(tmp_path))
