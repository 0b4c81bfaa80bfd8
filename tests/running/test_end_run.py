"""The report at the end of a run, and the verb that writes one."""

from __future__ import annotations

import html

import pytest

import volano
from conftest import classification
from report.folders import make_run
from volano.cli.train import print_run
from volano.errors import RunError, UsageError
from volano.running import end_run
from volano.running.end_run import write_report
from volano.training import RunFolder
from volano.training.signals import StopRequest


@pytest.fixture
def broken(monkeypatch):
    """``broken(error)``: writing a page fails."""

    def install(error):
        def fail(run):
            raise error

        monkeypatch.setattr(end_run, "write_page", fail)

    return install


class TestAtTheEnd:
    def test_a_finished_task_of_ones_own_has_a_page(self, make_task, tmp_path, quiet):
        run = volano.train(make_task(), out=tmp_path / "run", device="cpu", observer=quiet)
        page = (run.path / "report.html").read_text(encoding="utf-8")
        assert "trained on 512 examples for 2 epochs, 32 steps of 32 examples" in page
        assert f"{run.metrics['valid_loss']:.4g}" in page
        assert "What this page lacks" not in page
        assert run.verdict.is_good
        assert RunFolder.open(run.path).read_json("run.json")["verdict"] == run.verdict.to_json()
        assert run.verdict.lines()[0] in html.unescape(page)

    def test_a_stopped_run_has_none_and_a_resumed_one_does(
        self, make_task, tmp_path, quiet, monkeypatch
    ):
        monkeypatch.setattr(
            StopRequest,
            "requested",
            property(lambda self: True, lambda self, value: None),
            raising=False,
        )
        run = volano.train(make_task(), out=tmp_path / "run", device="cpu", observer=quiet)
        assert run.status == "stopped"
        assert run.verdict is None
        assert not (run.path / "report.html").exists()
        monkeypatch.undo()
        volano.resume(run.path, task=make_task(), observer=quiet)
        assert (run.path / "report.html").exists()

    def test_a_loss_that_is_no_number(self, make_task, tmp_path, quiet, capsys):
        def objective(model, batch):
            loss = classification(model, batch)
            return loss if model.training else loss * float("nan")

        task = make_task(objective=objective)
        run = volano.train(task, plan=volano.Plan.baseline(), out=tmp_path / "run", observer=quiet)
        assert "the validation loss is not a number" in " ".join(run.verdict.reasons)
        (run.path / "report.html").unlink()  # as if it had been killed before its page
        again = volano.resume(run.path, task=task, observer=quiet)
        assert print_run(again, as_json=False) == 0
        assert "valid loss nan" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (
                RunError("The report's file must be writable", got="a full disk"),
                "no report: The report's file must be writable; got a full",
            ),
            (
                ZeroDivisionError("nobody thought of that"),
                "no report: ZeroDivisionError: nobody thought of that",
            ),
        ],
    )
    def test_a_page_that_fails_is_a_notice(self, make_task, tmp_path, quiet, broken, error, told):
        broken(error)
        run = volano.train(make_task(), out=tmp_path / "run", device="cpu", observer=quiet)
        assert run.status == "finished"
        assert run.notices[-1].startswith(told)
        assert quiet.notices[-1] == run.notices[-1]
        assert RunFolder.open(run.path).read_json("run.json")["notices"] == list(run.notices)


class TestVerb:
    def test_one_run_or_several(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        runs = [make_run(tmp_path / name, "python") for name in ("a", "b")]
        assert write_report(runs[0]) == runs[0] / "report.html"
        assert (
            write_report(str(runs[0]), out="page.html").read_text()
            == (runs[0] / "report.html").read_text()
        )
        assert "2 runs compared" in write_report(*runs).read_text()

    def test_none(self):
        with pytest.raises(UsageError, match="one run or more"):
            write_report()


@pytest.mark.parametrize(("others", "out"), [(["another"], None), ([], "page.html")])
def test_a_study_has_a_page_of_its_own(tmp_path, others, out):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text("{}")
    with pytest.raises(UsageError, match=r"about it alone.*Say volano report .*study"):
        write_report(tmp_path / "study", *(tmp_path / name for name in others), out=out)
