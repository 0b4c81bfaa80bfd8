"""The final figures of a run, each beside its baseline."""

import pytest

from report.folders import make_run
from volano.record.read_run import read_run
from volano.report.figures import facts_of, figures_of, in_order


def test_the_most_telling_comes_first():
    assert in_order(["train_loss", "perplexity", "bits_per_byte", "x"]) == [
        "bits_per_byte",
        "perplexity",
        "train_loss",
        "x",
    ]


# Wilson, of 60 of 63.
BESIDE = "always the commonest class: 33.33 %; 63 examples; 95 % interval 86.91 to 98.37 %"


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("image", ("Test accuracy", "95.24 %", BESIDE)),
        ("text", ("Bits per byte", "2.043", "bz2 2.208, xz 2.316")),
        ("video", ("PSNR, first frame", "21.42 dB", "copy last 15.10 dB, mean frame 16.04 dB")),
    ],
)
def test_a_figure_stands_beside_its_baseline(tmp_path, kind, first):
    figures = figures_of(read_run(make_run(tmp_path / "run", kind)))
    assert (figures[0].name, figures[0].value, figures[0].beside) == first
    assert not {"Commonest class", "Test examples"} & {figure.name for figure in figures}


def test_what_is_no_number_is_no_figure(tmp_path):
    metrics = {
        "test_accuracy": "high",
        "train_loss": None,
        "valid_loss": 1.5,
        "perplexity": 10**400,
    }
    record = read_run(make_run(tmp_path / "run", "image", metrics=metrics))
    assert [figure.value for figure in figures_of(record)] == ["1.5"]


def test_facts_say_how_far_it_came(tmp_path):
    facts = {
        fact.name: fact.value for fact in facts_of(read_run(make_run(tmp_path / "a", "python")))
    }
    assert facts["Length"] == "400 steps"
    assert facts["Device"] == "cpu (AMD EPYC)"
    facts = {
        fact.name: fact.value
        for fact in facts_of(read_run(make_run(tmp_path / "b", "python", step=1, machine=[])))
    }
    assert facts["Length"] == "1 step of 400 steps"
    assert "Device" not in facts
