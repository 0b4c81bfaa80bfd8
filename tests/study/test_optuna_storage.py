"""Where Optuna keeps a study, and what is said when it cannot."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import optuna
import pytest

from study.standin import Heard, Standin, run, task
from volano.errors import CheckpointError, ExploreError, MissingExtraError, UsageError
from volano.study import optuna_storage
from volano.study.optuna_storage import JournalInMemory, StudyStorage, without_password
from volano.study.study import Study


def test_a_journal_in_memory_is_optunas_on_disk(tmp_path):
    journal = JournalInMemory(tmp_path / "journal.log")
    study = optuna.create_study(storage=optuna.storages.JournalStorage(journal), study_name="s")
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    study.tell(trial, 2.0)
    assert (tmp_path / "journal.log").read_bytes() == b""
    journal.flush()
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    loaded = optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(backend))
    assert loaded.trials == study.trials
    again = JournalInMemory(tmp_path / "journal.log")
    assert list(again.read_logs(0)) == list(journal.read_logs(0))
    size = (tmp_path / "journal.log").stat().st_size
    again.flush()
    assert (tmp_path / "journal.log").stat().st_size == size


def test_half_a_last_line_is_taken_off_and_other_damage_is_said(tmp_path):
    path = tmp_path / "journal.log"
    path.write_bytes(b'{"op_code": 0}\n{"op_c')
    assert list(JournalInMemory(path).read_logs(0)) == [{"op_code": 0}]
    assert path.read_bytes() == b'{"op_code": 0}\n'
    path.write_bytes(b'{"op_co\n{"op_code": 0}\n')
    with pytest.raises(
        CheckpointError,
        match=r"A study's journal must hold JSON lines; got line 1 of .*journal\.log",
    ):
        JournalInMemory(path)


def test_a_lock_of_a_killed_process_is_in_nobodys_way(tmp_path):
    (tmp_path / "journal.log.lock").symlink_to(tmp_path / "journal.log")
    journal = JournalInMemory(tmp_path / "journal.log")
    journal.append_logs([{"op_code": 0}])
    journal.flush()
    assert (tmp_path / "journal.log").read_bytes() == b'{"op_code":0}\n'


def test_a_shared_sqlite_holds_the_study_and_its_cost_is_said_once(tmp_path):
    heard = Heard()
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    study = run(tmp_path / "s", storage=url, trials=9, observer=heard)
    assert [text for text in heard.notices if "SQLite takes about" in text] == heard.notices
    assert not (tmp_path / "s" / "journal.log").exists()
    loaded = optuna.load_study(study_name="s", storage=url)
    assert len(loaded.trials) == 9
    assert loaded.best_value == study.best.value
    assert Study.open(tmp_path / "s").optuna.best_value == study.best.value
    study.optuna._storage.remove_session()
    loaded._storage.remove_session()


def test_a_journal_file_of_ones_own_is_shared_by_two_studies_of_its_name(tmp_path):
    first = run(tmp_path / "a" / "s", storage=str(tmp_path / "journal"), trials=9)
    heard = Heard()
    second = run(tmp_path / "b" / "s", storage=str(tmp_path / "journal"), trials=9, observer=heard)
    assert heard.notices[0].startswith(
        "the storage holds a study 's' with 9 trials already: this one joins it"
    )
    assert [trial.number for trial in first.trials] == list(range(9))
    assert [trial.number for trial in second.trials] == list(range(9, 18))
    assert len(second.optuna.trials) == 18


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_a_study_in_a_shared_storage_goes_on_in_it(tmp_path, kind):
    import os
    import signal

    def stop(number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGINT)

    url = str(tmp_path / "journal") if kind == "journal" else f"sqlite:///{tmp_path / 'shared.db'}"
    assert run(tmp_path / "s", Standin(before=stop), storage=url, trials=9).status == "stopped"
    study = run(tmp_path / "s", resume=True, trials=9)
    assert study.status == "finished"
    assert len(study.optuna.trials) == 9


def test_a_study_of_that_name_with_another_direction_is_refused(tmp_path):
    path = str(tmp_path / "journal")
    run(tmp_path / "a" / "s", storage=path, trials=3)
    with pytest.raises(
        UsageError, match="got direction='maximize' and the study 's' with minimize"
    ):
        run(tmp_path / "b" / "s", storage=path, trials=3, direction="maximize")
    run(tmp_path / "b" / "s", storage=path, trials=3)  # nothing had begun there


def test_a_study_of_that_name_with_another_space_is_refused_by_parameter(tmp_path):
    path = str(tmp_path / "journal")
    run(tmp_path / "a" / "s", storage=path, trials=3)

    def other(trial):
        trial.suggest_float("x", 0.0, 9.0)
        return task()

    with pytest.raises(
        UsageError,
        match=r"'x' was FloatDistribution\(high=1\.0.* and is FloatDistribution\(high=9\.0",
    ):
        run(tmp_path / "b" / "s", storage=path, trials=3, build=other)


@pytest.mark.parametrize(
    "pruner",
    [
        optuna.pruners.MedianPruner(),
        optuna.pruners.SuccessiveHalvingPruner(),
        optuna.pruners.HyperbandPruner(),
    ],
)
def test_a_pruner_that_is_asked_trial_by_trial_is_refused(tmp_path, pruner):
    study = optuna.create_study(pruner=pruner)
    with pytest.raises(
        UsageError,
        match=f"rank all trials of a cohort at once; got {type(pruner).__name__}.*NopPruner",
    ):
        run(tmp_path / "s", storage=study)


def test_a_storage_that_is_locked_says_what_helps(tmp_path, monkeypatch):
    monkeypatch.setattr(optuna_storage, "_SQLITE_PATIENCE_SECONDS", 0.05)
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    first = run(tmp_path / "a", storage=url, trials=3)
    first.optuna._storage.remove_session()
    other = sqlite3.connect(tmp_path / "shared.db")
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(
            ExploreError,
            match=r"must let each process write, one at a time.*database is locked.*`resume`",
        ):
            run(tmp_path / "b", storage=url, trials=3)
    finally:
        other.close()


def test_a_storage_that_is_locked_while_trials_are_asked_for_fails_no_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(optuna_storage, "_SQLITE_PATIENCE_SECONDS", 0.05)
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    other = sqlite3.connect(tmp_path / "shared.db", isolation_level=None)

    def locking(trial):
        if trial.number == 2:
            other.execute("BEGIN EXCLUSIVE")
        trial.suggest_float("x", 0.0, 1.0)
        return task()

    try:
        with pytest.raises(ExploreError, match="must let each process write, one at a time"):
            run(tmp_path / "s", storage=url, trials=9, build=locking)
    finally:
        other.close()
    study = run(tmp_path / "s", trials=9, resume=True)
    assert study.status == "finished"
    assert {trial.state for trial in study.trials} == {"complete", "pruned"}


def test_a_storage_of_another_version_of_optuna_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    run(tmp_path / "a", storage=url, trials=3).optuna._storage.remove_session()
    with sqlite3.connect(tmp_path / "shared.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    database.close()
    with pytest.raises(
        CheckpointError,
        match="A study's storage must be of this version of Optuna; got .*storage upgrade",
    ):
        run(tmp_path / "b", storage=url, trials=3)


@pytest.mark.parametrize(
    ("url", "kind", "text"),
    [
        (
            "sqlite:////nowhere/at/all/s.db",
            ExploreError,
            "A study's storage must be readable and writable; got .*unable to open",
        ),
        (
            "nosuch://host/db",
            MissingExtraError,
            "driver of the storage's database must be installed",
        ),
        (
            "/nowhere/at/all/journal",
            ExploreError,
            "A study's storage must be readable and writable",
        ),
    ],
)
def test_a_storage_that_cannot_be_opened_says_why(tmp_path, url, kind, text):
    with pytest.raises(kind, match=text):
        run(tmp_path / "s", storage=url, trials=3)
    run(tmp_path / "s", trials=3)  # the folder was left as one in which a study can start


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    (tmp_path / "journal").write_text("hello\nworld\n")
    with pytest.raises(CheckpointError, match="A journal's file must be one of Optuna's"):
        run(tmp_path / "s", storage=str(tmp_path / "journal"), trials=3)


def test_a_storage_given_as_an_object_is_asked_for_again(tmp_path):
    kept = optuna.storages.InMemoryStorage()
    run(tmp_path / "s", storage=kept, trials=3)
    again = Study.open(tmp_path / "s")
    with pytest.raises(CheckpointError, match="whose storage was given as an object"):
        again.optuna  # noqa: B018
    with pytest.raises(UsageError, match="A resumed study must keep its storage"):
        run(tmp_path / "s", trials=9, resume=True)
    assert len(run(tmp_path / "s", storage=kept, trials=9, resume=True).optuna.trials) == 9


def test_no_password_is_written_down():
    assert without_password("mysql://me:secret@host/db") == "mysql://me@host/db"
    assert without_password("sqlite:///a.db") == "sqlite:///a.db"
    assert without_password("journal/p@th:x") == "journal/p@th:x"


def test_optunas_chatter_is_as_loud_as_before(tmp_path, capsys):
    before = optuna.logging.get_verbosity()
    run(tmp_path / "s", trials=3)
    assert optuna.logging.get_verbosity() == before
    assert capsys.readouterr() == ("", "")


def test_a_journal_is_given_for_the_folder_alone(tmp_path: Path):
    assert StudyStorage(None, tmp_path).url is None
    assert not StudyStorage(None, tmp_path).is_shared
    assert StudyStorage(str(tmp_path / "journal"), tmp_path).is_shared
