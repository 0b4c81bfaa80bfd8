"""A run's test set is the run's, whatever becomes of the table."""

import pytest

import volano
from data.sources.text.test_labelled_texts import write_table
from volano.apps.text.classify.application import ClassifyApplication
from volano.apps.text.classify.options import ClassifyOptions
from volano.apps.text.classify.training import ClassifyTraining
from volano.training import RunFolder


@pytest.fixture
def trained(tmp_path):
    root = tmp_path / "table"
    root.mkdir()
    table = write_table(root / "t.csv")
    volano.train(
        "text", table, classify=True, minutes=0.02, out=root / "run", observer=volano.Observer(),
        plan=volano.Plan.baseline(),
    )  # fmt: skip
    return root / "run", table


def test_another_order_of_rows_and_new_ones_change_nothing(trained):
    run, table = trained
    before = ClassifyTraining.from_run(RunFolder.open(run))
    first = volano.load(run, device="cpu").evaluate()
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, 'tool,"a new one"', 'planet,"mars"', *reversed(rows)]))
    again = volano.load(run, device="cpu").evaluate()
    assert again["confusion"] == first["confusion"]
    assert "1 texts are new, and are not evaluated" in " ".join(again["notices"])
    assert "texts of other classes are left out: planet" in " ".join(again["notices"])
    after = ClassifyTraining.from_run(RunFolder.open(run))
    assert after.train.texts == before.train.texts
    assert after.test.texts == before.test.texts
    assert after.choice.tolist() == before.choice.tolist()
    whole = volano.load(run, device="cpu")
    table.write_text("\n".join([head, *rows]))
    notices = " ".join(whole.evaluate(table)["notices"])
    assert f"{len(before.train)} of the 120 tested texts are among those that the run" in notices


def test_a_new_run_holds_the_same_texts_out(trained, tmp_path):
    _, table = trained
    first = ClassifyApplication.read(ClassifyOptions(path=str(table)))
    head, *rows = table.read_text().splitlines()
    more = tmp_path / "more.csv"
    more.write_text("\n".join([head, 'tool,"a new one"', *reversed(rows)]))
    again = ClassifyApplication.read(ClassifyOptions(path=str(more)))
    assert set(again.test.texts) - {"a new one"} == set(first.test.texts)
