"""The record of an explanation and its text."""

from __future__ import annotations

import json

from volano.script.search.explanation import describe_time, explanation_of

CHARGES = [
    ("data", "data.py", 17, 17, 0.006, 1),
    ("transfer", "train.py", 18, 18, 0.001, 2),
    ("forward", "train.py", 19, 19, 0.002, 1),
    ("read", "train.py", 22, 22, 0.0001, 1),
    ("rest", None, None, None, 0.0009, 0),
]


def make_record(folder, **changes):
    names = ("part", "file", "line", "to_line", "seconds", "count")
    charges = [dict(zip(names, charge, strict=True)) for charge in CHARGES]
    for charge in charges:
        charge["file"] = charge["file"] and str(folder / charge["file"])
    loader = {"dataset": "Photos", "dataset_place": ["/elsewhere/photos.py", 8], "num_workers": 1}
    transfers = {f"{folder}/train.py:18": {"is_pinned": False, "non_blocking": False}}
    record = {
        "status": "measured", "num_steps": 40, "num_warmup_steps": 3, "step_seconds": 0.01,
        "free_step_seconds": 0.008, "evaluation_seconds": 2.0, "busy_cores": 1.5,
        "num_optimizers": 2, "peak_bytes": 3 * 2**30, "parts": charges,
        "facts": {"device": "meta", "loaders": [loader], "transfers": transfers},
    }  # fmt: skip
    return record | changes


def test_the_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    found = explanation_of(make_record(tmp_path), "train.py", ["--lr", "0.1"])
    assert describe_time(found) == [
        "train.py: 8.00 ms a step on meta",
        "  40 steps measured, the first 3 left out",
        "",
        "  waiting for data       6.00 ms   60%  ##################",
        "      data.py:17  6.00 ms  Photos (/elsewhere/photos.py:8), 1 worker",
        "  copies to the device   1.00 ms   10%  ###",
        "      train.py:18  1.00 ms  from pageable memory, blocking",
        "  forward                2.00 ms   20%  ######",
        "      train.py:19  2.00 ms",
        "  reads by the host       0.1 ms    1%",
        "      train.py:22  0.1 ms  1 a step",
        "  the rest                0.9 ms    9%  ###",
        "      in libraries  0.9 ms",
        "",
        "  10.0 ms a step while its parts are timed",
        "  evaluation in between: 2.0 s, not counted",
        "  peak memory 3.00 GiB, 1.5 of 2 cores busy",
    ]


def test_the_record_as_json(tmp_path):
    found = explanation_of(make_record(tmp_path), "train.py", ["--lr", "0.1"])
    record = json.loads(json.dumps(found.to_json()))
    assert record["script"] == "train.py"
    assert record["arguments"] == ["--lr", "0.1"]
    assert [part["name"] for part in record["parts"]] == [charge[0] for charge in CHARGES]
    assert record["parts"][0]["places"][0]["line"] == 17
    assert found.part("backward").seconds == 0
    assert record["notices"] == ["2 optimizers step; a step here is one of the first of them"]
