"""What a person sees while a run goes on."""

import io
import re

import pytest

import volano
from volano.training import PlainProgress, RichProgress
from volano.training import progress as module
from volano.training.observe import Observer, Observers, StartInfo
from volano.training.progress import make_progress


class TestProgress:
    def test_plain_lines_where_there_is_no_terminal(self, make_task, tmp_path):
        stream = io.StringIO()
        volano.train(make_task(name="digits"), out=tmp_path / "run", observer=PlainProgress(stream))
        lines = stream.getvalue().splitlines()
        assert lines[0] == "choosing a plan for digits ..."
        assert lines[1].startswith("digits: 2,410 parameters on cpu, 32 steps of 32 examples -> ")
        assert any(line.startswith("step 32/32  valid loss ") for line in lines)
        assert lines[-1].startswith("finished after 0:0")
        assert "\x1b" not in stream.getvalue()

    @pytest.mark.parametrize("width", [80, 120])
    def test_a_bar_fits_its_terminal(self, make_task, tmp_path, monkeypatch, width):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr("volano.training.progress._REFRESH_SECONDS", 0.0)
        stream = Terminal()
        volano.train(make_task(name="digits"), out=tmp_path / "run", observer=RichProgress(stream))
        text = stream.getvalue()
        assert "examples/s" in text
        assert "left" in text
        bars = [line for line in text.replace("\r", "\n").split("\n") if "examples/s" in line]

        assert bars
        assert max(len(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line)) for line in bars) <= width


class Terminal(io.StringIO):
    def isatty(self):
        return True


def info(**fields):
    known = {
        "name": "digits", "folder": "runs/1", "first_step": 0, "num_steps": 200,
        "steps_per_epoch": 10, "batch_size": 32, "device": "cpu", "num_parameters": 12345,
    }  # fmt: skip
    return StartInfo(**{**known, **fields})


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_a_terminal_gets_a_bar_and_a_file_gets_lines():
    assert isinstance(make_progress(Terminal()), RichProgress)
    assert isinstance(make_progress(io.StringIO()), PlainProgress)


def test_a_line_every_ten_seconds(clock):
    stream = io.StringIO()
    plain = PlainProgress(stream)
    plain.on_start(info(first_step=100))
    for step in (110, 120, 130):
        clock[0] += 5.0
        plain.on_log({"step": step, "loss": 0.12345, "examples_per_second": 1234.5})
    clock[0] = 100.0 + 3725
    plain.on_end("stopped")
    assert stream.getvalue().splitlines() == [
        "digits: 12,345 parameters on cpu, from step 100 on, 200 steps of 32 examples -> runs/1",
        # 20 steps in 10 seconds, and 80 are left.
        "step 120/200  loss 0.1235  1,234 examples/s  0:40 left",
        "stopped after 1:02:05",
    ]


def test_evaluations_previews_and_notices_have_lines_of_their_own(clock):
    stream = io.StringIO()
    plain = PlainProgress(stream)
    plain.on_start(info())
    plain.on_evaluation({"step": 9, "valid_loss": 1.5, "valid_accuracy": 0.25})
    plain.on_preview({"step": 9, "text": "word " * 100})
    plain.on_notice("a disk is full")
    _, evaluation, preview, notice = stream.getvalue().splitlines()
    assert evaluation == "step   9/200  valid loss 1.5  valid accuracy 0.25"
    assert preview.startswith("  text: word word")
    assert preview.endswith(" ...")
    assert len(preview) < 220
    assert notice == "note: a disk is full"


def test_phases_are_lines():
    for kind in (PlainProgress, RichProgress):
        stream = io.StringIO()
        kind(stream).on_phase("reading photos")
        assert stream.getvalue() == "reading photos ...\n"


def test_every_observer_hears_of_a_phase():
    heard = []

    class Listening(Observer):
        def on_phase(self, text):
            heard.append(text)

    Observers(Listening(), Observer(), Listening()).on_phase("testing")
    assert heard == ["testing", "testing"]
