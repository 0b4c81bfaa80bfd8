"""The folder of a study differs from a run's in names and in what counts as begun."""

import pytest

from volano.errors import CheckpointError, UsageError
from volano.record.study_folder import STATES, STUDY, TRIALS, StudyFolder


@pytest.fixture
def folder(tmp_path):
    made = StudyFolder.reserve(tmp_path / "s", "study")
    made.make()
    yield made
    made.release()


def test_it_is_made_with_a_place_for_states(folder):
    assert (folder.path / STATES).is_dir()
    folder.update(status="running")
    assert StudyFolder.open(folder.path).read_json(STUDY) == {
        "schema_version": 1,
        "status": "running",
    }


def test_one_without_a_trial_is_started_over_and_its_journal_goes(folder):
    (folder.path / "journal.log").write_text("old")
    folder.release()
    again = StudyFolder.reserve(folder.path, "study")
    again.make()
    assert not (folder.path / "journal.log").exists()
    again.release()


def test_one_with_a_trial_is_not(folder):
    folder.append(TRIALS, {"event": "asked", "trial": 0, "params": {}})
    with pytest.raises(
        UsageError,
        match="A study must start in a folder of its own; got .*which holds one.*`resume`",
    ):
        StudyFolder.reserve(folder.path, "study")
    folder.release()
    with pytest.raises(UsageError, match="which holds one by now"):  # between reserving and making
        StudyFolder(folder.path).make()


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (None, UsageError, "A study's folder must hold study.json; got .*that explore printed"),
        ("{", CheckpointError, "study.json of a study's folder must hold JSON"),
        (
            '{"schema_version": 2}',
            CheckpointError,
            "reads study folders of schema version 1; got 2",
        ),
        (
            '{"schema_version": 1, "settings": "x"}',
            CheckpointError,
            "must hold settings as dict; got str",
        ),
        (
            '{"schema_version": 1, "settings": {"shares": 3}}',
            CheckpointError,
            r"must hold settings\.shares as list; got int",
        ),
        (
            '{"schema_version": 1, "settings": {"minutes": true}}',
            CheckpointError,
            r"must hold settings\.minutes as int or float; got bool",
        ),
    ],
)
def test_what_is_no_study_is_not_opened(tmp_path, content, error, words):
    if content is not None:
        (tmp_path / STUDY).write_text(content)
    with pytest.raises(error, match=words):
        StudyFolder.open(tmp_path)
    if error is CheckpointError and "settings" in content:  # a page is made of whatever is there
        StudyFolder.open(tmp_path, is_tolerant=True)
