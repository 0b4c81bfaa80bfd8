"""The table of comparisons fits a terminal."""

import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from volano.cli.bench import COLUMNS, RIGHT, bench_rows, notes_of
from volano.cli.show.explanation import print_table

ROW = {
    "task": "16 small nets", "device": "cuda:0", "plain_seconds": 1.23456, "planned_seconds": 0.5,
    "gain": {"median": 2.469, "least": 2.4, "most": 12.5}, "planning_seconds": 12.34,
    "run_gain": 2.2, "plan": "precision=bf16, compile=True, memory_format=channels_last, threads=2",
}  # fmt: skip


def test_it_fits_into_eighty_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    record = {"rows": [ROW], "run_seconds": 180.0, "left_out": ["video on cpu: no time was left"]}
    print_table(COLUMNS, bench_rows(record["rows"]), right=RIGHT)
    _, line = capsys.readouterr().out.splitlines()
    assert len(line) <= 80
    assert line.split() == [
        "16", "small", "nets", "cuda:0", "1235", "ms", "500", "ms", "2.47x", "2.40-12.50", "12.3",
        "s", "2.20x",
    ]  # fmt: skip
    notes = notes_of(record)
    assert max(map(len, notes)) <= 80
    assert notes[-1] == "left out: video on cpu: no time was left"


def test_the_pictures_of_it(tmp_path):
    script = Path(__file__).parents[2] / "docs" / "pictures" / "bench.py"
    record = {"rows": [ROW, ROW], "run_seconds": 180.0, "left_out": []}
    (tmp_path / "bench.json").write_text(json.dumps(record))
    command = [sys.executable, str(script), "bench.json", "picture"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
    assert "2.47x" in (tmp_path / "picture.svg").read_text()
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size[0] == 1200
