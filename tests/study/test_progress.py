"""What a person sees of a study: a table in a terminal, plain lines elsewhere."""

import io
import time

import pytest
from rich.console import Console

from volano.record.study import BestTrial
from volano.study import progress as progress_module
from volano.study.observe import RungDecision, StudyInfo, Summary
from volano.study.progress import PlainStudyProgress, RichStudyProgress, decided, table


class TestProgress:
    info = StudyInfo(
        name="s", folder="runs/s", num_trials=64, num_before=0, minutes=None, metric="loss",
        direction="minimize", shares=(1 / 27, 1 / 9, 1 / 3, 1.0), num_workers=2,
        sampler="TPESampler",
    )  # fmt: skip
    summary = Summary(
        num_trials=64, num_asked=40, num_running=12, num_pruned=20, num_complete=7, num_failed=1,
        best=BestTrial(number=17, params={"lr": 0.00123456, "net": "wide"}, value=0.123456,
        share=1.0), steps=12_000, steps_per_second=8123.4, seconds=83.0, seconds_left=7200.0,
        training={1 / 27: 12},
    )  # fmt: skip

    @pytest.mark.parametrize("width", [80, 120])
    def test_the_table_fits(self, width):
        stream = io.StringIO()
        Console(file=stream, width=width).print(table(self.info, self.summary))
        lines = stream.getvalue().splitlines()
        assert all(len(line.rstrip()) <= width for line in lines)
        text = " ".join(stream.getvalue().split())
        for part in ("loss 0.12346 (trial 17)", "lr=0.001235", "net=wide", "12 running",
        "20 pruned", "1 failed", "8,123 configuration-steps/s", "1 min 23 s", "2 h 0 min left",
                     "now training 12 to 4% of the run"):  # fmt: skip
            assert part in text

    def test_plain_lines_where_it_is_no_terminal(self):
        stream = io.StringIO()
        progress = PlainStudyProgress(stream)
        progress.on_start(self.info)
        progress.on_trials(self.summary)  # too soon after the start
        progress.on_rung(
            RungDecision(rung=0, share=1 / 3, values={1: 0.5, 2: float("nan")}, kept=(1,), cut=(2,))
        )
        progress.on_notice("something")
        progress.close()
        lines = stream.getvalue().splitlines()
        assert lines[0].startswith(
            "64 trials, minimize loss, TPESampler, rungs at 4%, 11%, 33%, 100% of the run, 2 "
            "workers"
        )
        assert lines[1] == "33% of the run: 1 continue, 1 pruned, values 0.5 to 0.5"
        assert lines[2] == "note: something"
        assert len(lines) == 3

    def test_a_line_is_due_when_nothing_was_said_for_a_while(self, monkeypatch):
        monkeypatch.setattr(progress_module, "_PLAIN_SECONDS", 0.05)
        monkeypatch.setattr(progress_module, "_TICK_SECONDS", 0.01)
        stream = io.StringIO()
        progress = PlainStudyProgress(stream)
        progress.on_start(self.info)
        progress.on_trials(self.summary)
        deadline = time.monotonic() + 20
        while (
            stream.getvalue().count("training 12 to 4% of the run") < 2
            and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        progress.close()
        assert stream.getvalue().count("training 12 to 4% of the run") >= 2

    def test_trials_are_complete_at_the_last_rung(self):
        decision = RungDecision(rung=3, share=1.0, values={1: 0.5, 2: 0.25}, kept=(1, 2), cut=())
        assert decided(decision) == "100% of the run: 2 complete, values 0.25 to 0.5"

    def test_a_table_that_is_taken_away_at_the_end(self):
        stream = io.StringIO()
        progress = RichStudyProgress(stream)
        progress.on_start(self.info)
        progress.on_trials(self.summary)
        progress.close()
        assert "64 trials" in stream.getvalue()
