"""Explanations on the terminal: what stands in them, at every width, in any encoding."""

import io
import json
import re
import runpy
import xml.etree.ElementTree
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from cli.printing import printed, squeezed
from report.explanations import BASE, CHOSEN, LONG_REASON, MIB, make_explanation
from volano.cli.show import explanation
from volano.cli.show.explanation import print_explanation
from volano.plan.network import NetworkFigures, NetworkPart
from volano.planner import Candidate, Explanation

WIDTHS = (80, 100, 120)


ACTUAL = {
    "step": 0.0391,
    "startup": 1.2,
    "memory_bytes": 588 * MIB,
    "memory": {"activations": 372 * MIB},
    "bounds": {"compute": 0.027},
    "device_temperature": 71,
    "step_error": 0.054,
}


class TestWhatIsShown:
    @pytest.mark.parametrize("width", WIDTHS)
    def test_everything_at_every_width(self, width):
        text = printed(make_explanation(actual=ACTUAL).to_json(), width)
        assert max(map(cell_len, text.splitlines())) <= min(width, 100)
        assert not re.search(r" +$", text, re.MULTILINE)
        whole = squeezed(text)
        for words in (
            "Plan of digits",
            "on cpu (AMD EPYC 7B13), 2,400 steps of 128 examples",
            "bf16 + channels_last + fused + resident + keep memory",
            "found candidates raced on this device",
            "numbers precision arithmetic in a narrower type",
            "memory FITS 604 MiB at the peak; the budget is 1.00 GiB",
            "gain 1.77 times as fast as plain eager: 1 min 15 s saved, planning counted",
            "predictions, made before the race, were off by",
            "planning took 4.1 s",
            "under this plan 1 min 33 s",
            "under plain eager 2 min 52 s",
            "exact feed resident, allocator keep",
            "rounding memory_format channels_last, optimizer fused",
            "as usual compile, compile_mode, graph, micro_batch, recompute, activation_budget, "
            "offload, workers, prefetch, threads",
            "optimizer state 96.0 MiB 16 %",
            "peak 604 MiB, during aten.convolution_backward in stages.2.conv1",
            "at least 604 MiB, at most 700 MiB, of which 96.0 MiB are reserve",
            "budget 1.00 GiB: 68 % used at most, 324 MiB left",
            "predicted, calibrated on this device",
            "compute 28.8 ms 70 %",
            "a step of 41.2 ms is predicted, 38.4 ms were measured: the prediction is 7 % too long",
            "step 41.2 ms 39.1 ms +5.4 %",
            "memory 604 MiB 588 MiB +2.7 %",
            "memory activations 380 MiB 372 MiB +2.2 %",
            "bounds compute 28.8 ms 27.0 ms +6.8 %",
            "Candidates (5)",
            "all of them: resident",
            "chosen (precision) the fastest that computes what plain eager does",
            "its gradients' error is 0.0021; plain eager's own is 0.0019",
            "plain eager 69.0 71.4 440 ms 2.9 min 590 MiB slower (exact) 1.84x the chosen one's "
            "time",
            f"rejected (precision) {LONG_REASON.strip()}",
            "not tried (precision) it takes about 48 s and may save 18 s of this run",
            "precision tf32 cpu computes in fp32, bf16 fp16 cpu computes in fp32, bf16 optimizer "
            "foreach",
            "threads 2 forbidden by you",
            "- memory kept for the data: 12 MiB",
        ):
            assert words in whole

    def test_bars_are_as_long_as_their_figures(self):
        lines = {
            line.split()[0]: line.count("█")
            for line in printed(make_explanation().to_json()).splitlines()
            if line
        }
        assert lines["activations"] == 40
        assert lines["parameters"] == 5
        assert lines["under"] == 40

    def test_a_remembered_or_saved_one_looks_the_same(self):
        record = make_explanation(actual=ACTUAL).to_json()
        again = json.loads(json.dumps(record))
        assert printed(again) == printed(record)

    @pytest.mark.parametrize("width", WIDTHS)
    def test_names_are_no_markup_and_steer_no_terminal(self, width):
        name = "[bold]x[/bold] [/] :smile: \x1b[31m\x9b31m " + "字" * 70
        record = make_explanation(task=name, notices=("[red]" + "y" * 200,)).to_json()
        text = printed(record, width)
        assert "[bold]x[/bold] [/] :smile:" in text
        assert text.count("字") == 70
        assert (
            text.count("y") - printed(make_explanation(notices=()).to_json(), width).count("y")
            == 200
        )
        assert not set(text) & {"\x1b", "\x9b"}
        assert max(map(cell_len, text.splitlines())) <= min(width, 100)

    def test_where_the_output_has_few_characters(self):
        file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        print_explanation(make_explanation(task="Größe"), file=file, width=80)
        file.seek(0)
        text = file.read()
        assert "Plan of Gr??e" in text
        assert re.search(r"activations +380 MiB +63 % +#{20,}\n", text)

    def test_colours_change_no_word(self, monkeypatch):
        monkeypatch.delenv("NO_COLOR", raising=False)
        record = make_explanation(actual=ACTUAL).to_json()
        console = Console(
            file=io.StringIO(),
            width=100,
            force_terminal=True,
            color_system="standard",
            highlight=False,
        )
        explanation.print_parts(explanation.render(Explanation.from_json(record), console), console)
        coloured = console.file.getvalue()
        assert "\x1b[" in coloured
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == printed(record)

    def test_what_does_not_fit(self):
        record = make_explanation(
            verdict="NO", budget=64 * MIB, needed=210 * MIB, seconds={}, measured=None
        ).to_json()
        whole = squeezed(printed(record))
        assert (
            "NO 604 MiB at the peak; the budget is 64.0 MiB; the leanest candidate needs 210 MiB"
            in whole
        )
        assert "budget 64.0 MiB: 1094 % used at most, 636 MiB too little" in whole
        assert "gain" not in whole

    def test_a_device_that_is_not_here(self):
        record = make_explanation(
            device="cuda", device_name="H100 SXM 80GB", is_present=False, origin="predicted"
        )
        assert "on cuda (H100 SXM 80GB), which is not on this machine" in printed(record.to_json())

    def test_nothing_predicted_and_nothing_searched(self):
        alone = (Candidate(plan=CHOSEN, status="chosen", reason="as given"),)
        record = make_explanation(
            origin="given", memory=None, time=None, measured=None, verdict=None, budget=None,
            seconds={}, candidates=alone, refused=(), notices=(),
        ).to_json()  # fmt: skip
        whole = squeezed(printed(record))
        assert "memory was not predicted" in whole
        assert "bf16 + channels_last + fused + keep memory chosen (precision) as given" in whole
        for title in (
            "at its peak",
            "Time of a step",
            "Not among",
            "Notices",
            "Predicted and actual",
        ):
            assert title not in whole

    def test_plain_eager_itself(self):
        eager = BASE.pin(feed="ring")
        alone = (Candidate(plan=eager, status="chosen", reason="it needs no measuring"),)
        record = make_explanation(
            plan=eager, candidates=alone, seconds={"plan": 9.0, "eager": 9.0}
        ).to_json()
        whole = squeezed(printed(record))
        assert "plain eager found" in whole
        assert "exact bitwise those of plain eager" in whole
        assert "gain none: 4.1 s longer than plain eager, planning counted" in whole
        # What predicting took is not paid by a run.
        record = make_explanation(origin="predicted", planning_seconds=900.0).to_json()
        assert (
            "1.84 times as fast as plain eager: 1 min 19 s saved, planning not counted"
            in squeezed(printed(record))
        )


def test_the_picture_for_a_page(tmp_path):
    script = Path(__file__).parents[3] / "docs" / "pictures" / "explanation.py"
    namespace = runpy.run_path(str(script))
    picture = namespace["draw"](make_explanation().to_json(), ["headline", "memory"], "a title")
    root = xml.etree.ElementTree.fromstring(picture)
    words = squeezed(" ".join(root.itertext()).replace("\xa0", " "))
    assert "Plan of" in words
    assert "380 MiB" in words
    assert "Candidates" not in words
    assert "url(http" not in picture
    assert "@font-face" not in picture


def test_the_network_is_shown_where_it_is_known():
    part = NetworkPart(name="trunk", module="Net", parameters=1_200, trained=0)
    network = NetworkFigures(parts=(part,), frozen="what it computes is kept", saved_seconds=75.0)
    text = squeezed(printed(make_explanation(network=network).to_json(), 80))
    assert "Network parameters by part, and how many of them are trained" in text
    assert "trunk 1,200 frozen Net" in text
    assert "that saves 1 min 15 s of the run, predicted from a few examples" in text
    assert "Network" not in printed(make_explanation().to_json(), 80)
