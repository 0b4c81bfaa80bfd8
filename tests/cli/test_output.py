"""What commands print: lines and tables for people, one object for programs."""

import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from volano.apps.application import Table
from volano.cli import output
from volano.report.verdict import Verdict


def test_an_object_is_one_line_and_knows_paths_and_sets(capsys):
    output.print_json({"path": Path("runs/1"), "pair": (1, 2), "set": {3}, "text": "a\nb"})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"path": "runs/1", "pair": [1, 2], "set": [3], "text": "a\nb"}


def test_what_is_not_json_is_not_guessed():
    with pytest.raises(TypeError, match="object is not JSON"):
        output.print_json({"thing": object()})


def test_results_and_warnings_have_streams_of_their_own(capsys):
    output.say("one", "two")
    output.write("a piece")
    output.warn("careful")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("one\ntwo\na piece", "careful\n")


def test_a_name_gives_the_terminal_no_orders(capsys):
    name = "a\x1b[2J\x9b1m\x07\r\u202egnp.exe\udc80\tb"
    shown = "a\\x1b[2J\\x9b1m\\x07\\r\\u202egnp.exe\\udc80\tb"
    output.say(name, "two\nlines")
    output.warn(name)
    output.print_table("", ("name",), [(name,)])
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{shown}\ntwo\nlines\n")
    assert captured.err == f"{shown}\n"
    assert "\x1b[2J" not in captured.out


def test_a_piece_of_text_is_left_as_it_is_for_a_file(capsys, monkeypatch):
    output.write("a\x1bb")
    assert capsys.readouterr().out == "a\x1bb"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    output.write("a\x1bb")
    assert capsys.readouterr().out == "a\\x1bb"


def test_lines_and_tables_in_their_order(capsys):
    table = Table(title="Some figures", columns=("name", "count"), rows=[("a[b]", 3)], right=(1,))
    output.show(["before", table, "after"])
    text = capsys.readouterr().out
    assert text.startswith("before\nSome figures\n")
    assert text.endswith("after\n")
    assert "a[b]" in text  # no markup of rich's


def test_nothing_is_cut_where_there_is_no_terminal(capsys):
    name = "a-long-name/" * 12
    output.print_table("", ("path", "count"), [(name, 12345)], right=(1,))
    lines = capsys.readouterr().out.splitlines()
    assert any(name in line and line.rstrip().endswith("12345") for line in lines)


@pytest.mark.parametrize("has_page", [True, False])
def test_where_a_run_and_its_page_lie(capsys, tmp_path, has_page):
    run = SimpleNamespace(path=tmp_path)
    if has_page:
        (tmp_path / "report.html").write_text("")
    output.say_finished(run)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"run: {tmp_path}"
    assert lines[1:] == ([f"report: {tmp_path / 'report.html'}"] if has_page else [])
    assert output.report_of(run) == (tmp_path / "report.html" if has_page else None)


def test_how_a_stopped_run_goes_on(capsys):
    output.say_unfinished(SimpleNamespace(path="runs/1"))
    assert capsys.readouterr().out == "run: runs/1\nresume: volano resume runs/1\n"


def test_commands_are_pasted_as_they_stand(capsys, tmp_path):
    run = tmp_path / "my run"
    run.mkdir()
    (run / "run.json").write_text('{"source": {"reference": "my task.py:task"}}')
    output.say_unfinished(SimpleNamespace(path=run))
    words = shlex.split(capsys.readouterr().out.splitlines()[1])
    assert words == ["resume:", "volano", "resume", str(run), "--code", "my task.py:task"]


@pytest.mark.parametrize(
    ("kind", "data", "is_replaced"),
    [
        ("image", "my photos", True),
        ("image", "idx", False),
        ("video", "table.csv", False),
        ("text", "table.csv", True),
    ],
)
def test_data_is_named_where_it_can_be_predicted(tmp_path, kind, data, is_replaced):
    (tmp_path / "my photos" / "cat").mkdir(parents=True)
    (tmp_path / "idx").mkdir()
    for name in ("idx/train-images-idx3-ubyte", "table.csv"):
        (tmp_path / name).write_text("")
    place = str(tmp_path / data)
    source = {"kind": kind, "dials": {"path": place}}
    (tmp_path / "run.json").write_text(json.dumps({"source": source}))
    found = output.to_paste("volano predict r FILES...", tmp_path)
    assert shlex.split(found)[-1] == (place if is_replaced else "FILES...")


def test_a_verdict_is_green_only_if_it_is_good_news(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    for is_good, colour in ((True, "32m"), (False, "33m")):
        output.say_verdict(Verdict(is_good=is_good, reasons=("a reason", "another")))
        out = capsys.readouterr().out
        assert colour in out
        assert "a reason" in out
    output.say_verdict(Verdict(is_good=True))
    assert capsys.readouterr().out == "finished: nothing to compare it with\n"


def test_what_is_no_number_is_null_for_programs_and_nan_for_people(capsys):
    metrics = {"valid_loss": float("nan"), "a": None, "b": 0.5, "c": float("inf"), "d": "x"}
    output.print_json({"metrics": metrics})
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found == {"metrics": {"valid_loss": None, "a": None, "b": 0.5, "c": None, "d": "x"}}
    assert output.figures_in_words(metrics) == "valid loss nan  a nan  b 0.5  c inf  d nan"
