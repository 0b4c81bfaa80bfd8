"""Plans that are remembered: listed, shown, forgotten."""

import io
import json
import time

import pytest
from rich.cells import cell_len

from report.explanations import make_explanation
from volano.cli import plans
from volano.cli.show.explanation import print_explanation
from volano.planner.cache import store
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script, remember

FIRST, SECOND = "ab12cd34" + "0" * 56, "ff00ee11" + "1" * 56


@pytest.fixture
def volano(command, monkeypatch, tmp_path):
    """``volano("plans", ...)``; the cache is a folder of the test's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    return command


@pytest.fixture
def remembered(volano):
    """Two plans: one found now, one without measurements."""
    assert store.remember(SECOND, make_explanation(task="[b]text[/b]", measured=None)) is None
    time.sleep(0.01)
    assert store.remember(FIRST, make_explanation()) is None


@pytest.fixture
def remembered_script(volano, tmp_path, monkeypatch):
    """The plan of a script."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")
    plan, on = ScriptPlan(fused=True), ["EPYC", 2, None]
    remember(Script(target="train.py"), plan, on=on, gain=1.5, step_seconds=0.03)


class TestList:
    def test_nothing(self, volano, tmp_path):
        code, out, _ = volano("plans", "list")
        assert code == 0
        assert out == f"no plans are remembered in {tmp_path / 'cache' / 'volano' / 'plans'}\n"
        assert json.loads(volano("plans", "list", "--json")[1])["plans"] == []

    @pytest.mark.parametrize("width", ["80", "100", "120"])
    def test_the_newest_first(self, volano, remembered, monkeypatch, width):
        monkeypatch.setenv("COLUMNS", width)
        code, out, _ = volano("plans", "list")
        assert code == 0
        lines = out.splitlines()
        assert lines[0].split() == [
            "fingerprint",
            "task",
            "or",
            "script",
            "device",
            "plan",
            "ms",
            "a",
            "step",
            "age",
        ]
        assert lines[1].split()[:2] == ["ab12cd34", "digits"]
        assert "38.4  just now" in lines[1]
        rest = " ".join(out.split())
        assert "ff00ee11 [b]text[/b]" in rest
        assert "41.2 just now" in rest
        assert max(map(cell_len, lines)) <= min(int(width), 100)
        for word in ("bf16", "channels_last", "fused", "resident", "keep", "memory", "EPYC"):
            assert rest.count(word) == 2

    def test_json(self, volano, remembered, tmp_path):
        record = json.loads(volano("plans", "list", "--json")[1])
        assert [plan["fingerprint"] for plan in record["plans"]] == [FIRST, SECOND]
        assert record["plans"][0]["measured_seconds"] == 0.0384
        assert record["plans"][0]["path"] == str(
            tmp_path / "cache" / "volano" / "plans" / f"{FIRST}.json"
        )
        assert record["plans"][0]["plan"]["precision"] == "bf16"

    def test_scripts_too(self, volano, remembered_script):
        code, out, _ = volano("plans", "list")
        assert code == 0
        assert "train.py" in out
        assert "fused=True" in out
        assert "20.0" in out
        (script,) = json.loads(volano("plans", "list", "--json")[1])["scripts"]
        assert script["plan"]["fused"]
        code, out, _ = volano("plans", "show", script["fingerprint"][:4])
        assert code == 0
        assert out.startswith("train.py: fused=True\n  20.0 ms a step, 1.50 times as fast as")
        shown = json.loads(volano("plans", "show", script["fingerprint"], "--json")[1])
        assert shown == script
        assert volano("plans", "clear")[1] == "forgot 1 plan\n"
        assert volano("plans", "list")[1].startswith("no plans")

    def test_damaged_files_are_left_out(self, volano, remembered, tmp_path):
        (tmp_path / "cache" / "volano" / "plans" / f"{FIRST}.json").write_text(
            '{"schema_version": 1'
        )
        assert [
            plan["fingerprint"]
            for plan in json.loads(volano("plans", "list", "--json")[1])["plans"]
        ] == [SECOND]

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (-5, "just now"),
            (59, "just now"),
            (60, "1 minute"),
            (7300, "2 hours"),
            (200_000, "2 days"),
        ],
    )
    def test_ages(self, seconds, text):
        assert plans._age(seconds) == text


class TestShow:
    def test_by_the_beginning_of_its_fingerprint(self, volano, remembered):
        file = io.StringIO()
        print_explanation(make_explanation(), file=file, width=100)
        code, out, _ = volano("plans", "show", "ab")
        assert code == 0
        assert out == file.getvalue()
        assert json.loads(volano("plans", "show", FIRST, "--json")[1])["task"] == "digits"

    def test_what_is_not_there(self, volano, remembered):
        code, _, err = volano("plans", "show", "123")
        assert code == 2
        assert "exactly one remembered plan must begin with what is given; got '123', with" in err
        assert "with which none begins. There are: " in err
        assert "ab12cd34, ff00ee11" in err


class TestClear:
    def test_says_how_many(self, volano, remembered):
        assert volano("plans", "clear") == (0, "forgot 2 plans\n", "")
        assert json.loads(volano("plans", "clear", "--json")[1]) == {"num_forgotten": 0}
        assert volano("plans", "list")[1].startswith("no plans")

    def test_only_plans(self, volano, remembered, tmp_path):
        other = tmp_path / "cache" / "volano" / "rates.json"
        other.write_text("{}")
        assert volano("plans", "clear")[1] == "forgot 2 plans\n"
        assert other.exists()
