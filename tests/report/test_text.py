"""What a text run shows: bits per byte beside compressors, and what it wrote while it learned."""

from report.folders import make_run, write, write_lines
from volano.record.read_run import read_run
from volano.report.text import compression_of, previews_of


def test_the_best_comes_first_and_the_longest_bar_is_at_most_eight_bits(tmp_path):
    run = make_run(tmp_path / "run", "text")
    write(
        run / "eval-test.json",
        {"bits_per_byte": 2.0, "baselines": {"xz": 4.0, "raw": 16.0, "no": None}},
    )
    bars = compression_of(read_run(run))
    assert [(bar.name, bar.value, bar.percent) for bar in bars] == [
        ("this model", "2.000", 25.0),
        ("xz, after the training text", "4.000", 50.0),
        ("raw, after the training text", "16.000", 100.0),
    ]
    assert [bar.is_own for bar in bars] == [True, False, False]


def test_without_its_figure_there_is_no_comparison(tmp_path):
    run = make_run(tmp_path / "run", "text")
    write(run / "eval-test.json", {"bits_per_byte": "few", "baselines": {"xz": 4.0}})
    assert compression_of(read_run(run)) == []


def test_of_many_previews_some_are_shown_from_first_to_last(tmp_path):
    run = make_run(tmp_path / "run", "text")
    write_lines(
        run / "previews.jsonl",
        [{"step": step, "samples": [{"prompt": "a", "text": "b"}]} for step in range(100)],
    )
    steps = [preview.step for preview in previews_of(read_run(run))]
    assert (len(steps), steps[0], steps[-1]) == (12, "step 0", "step 99")


def test_whatever_a_preview_is_it_becomes_text(tmp_path):
    run = make_run(tmp_path / "run", "text")
    write_lines(
        run / "previews.jsonl",
        [{"step": 1, "score": 3}, {"samples": ["plain", {"prompt": 4, "text": "\x00x"}, 5]}],
    )
    found = previews_of(read_run(run))
    assert [preview.text for preview in found] == [
        '{\n "score": 3\n}',
        "plain",
        "\ufffdx",
        '{\n "text": 5\n}',
    ]
    assert [preview.step for preview in found] == ["step 1", "", "", ""]
