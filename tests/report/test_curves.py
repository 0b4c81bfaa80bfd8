"""The curves of a run over its steps."""

from report.folders import make_run, write_lines
from volano.record.read_run import read_run
from volano.report.curves import curves_of, metric_names, points


def test_points_are_numbers_in_the_order_of_the_steps():
    lines = [
        {"step": 2, "loss": 1.0},
        {"step": 1, "loss": 3},
        {"step": 3, "loss": None},
        {"loss": 1.0},
        {"step": "4", "loss": 1},
    ]
    assert points(lines, "loss") == [(1.0, 3.0), (2.0, 1.0)]


def test_metrics_are_what_no_field_of_a_line_is(tmp_path):
    run = make_run(tmp_path / "run", "python")
    lines = [
        {"step": 1, "loss": 1.0, "lr": 0.1, "f1": 0.5, "memory_bytes": 2**20},
        {"step": 1, "valid_loss": 1.0, "valid_accuracy": 0.5},
    ]
    write_lines(run / "metrics.jsonl", lines)
    assert metric_names([read_run(run), read_run(run)]) == ["f1", "accuracy"]


def test_a_chart_without_data_is_left_out(tmp_path):
    run = make_run(tmp_path / "run", "python")
    (run / "metrics.jsonl").write_text("")
    assert curves_of(read_run(run)) == []
    write_lines(
        run / "metrics.jsonl",
        [{"step": step, "loss": 1.0 / step, "data_wait_share": 0.005} for step in (1, 2)],
    )
    # Half a percent of waiting is not shown.
    assert [chart.title for chart in curves_of(read_run(run))] == ["Loss"]
    write_lines(
        run / "metrics.jsonl",
        [{"step": step, "loss": 1.0 / step, "data_wait_share": 0.5} for step in (1, 2)],
    )
    assert [chart.title for chart in curves_of(read_run(run))] == ["Loss", "Waiting for data"]
