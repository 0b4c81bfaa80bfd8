"""A training on a cluster, from the command line to the screen."""

import json
import re
import sys
from pathlib import Path

import pytest

TASK = """
import functools, torch, volano
from torch import nn
from volano.data import Arrays

def objective(model, batch):
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)

data = Arrays((torch.zeros(64, 32), torch.zeros(64, dtype=torch.int64)))
task = volano.Task(
    model=lambda: nn.Linear(32, 10), objective=objective, data=data,
    optimizer=functools.partial(torch.optim.SGD, lr=0.1),
    batch_size=64, duration="100st", name="mine",
)
"""


@pytest.fixture
def volano(command, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("on_paper.py").write_text(TASK)
    sys.modules.pop("on_paper", None)

    yield command
    sys.modules.pop("on_paper", None)


def test_a_task_on_paper(volano):
    code, out, err = volano(
        "explain", "on_paper:task", "--on", "H100 x 16", "--nodes", "4", "--job", "slurm"
    )
    assert code == 0, err
    assert "mine on 16 x H100 SXM 80GB, 4 machines of 4 (DGX H100; 450 GB/s within" in out
    assert "whole copies (DDP)" in out
    assert "torchrun --nnodes=4" in out
    assert "-m volano train on_paper:task --precision" in out
    assert "#SBATCH --nodes=4" in out
    assert all(len(line) <= 100 for line in out.split("Command")[0].splitlines()[2:-2])


def test_as_json(volano):
    code, out, _ = volano("explain", "on_paper:task", "--on", "A100 x 8", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["verdict"] == "FITS"
    assert found["command"].startswith("torchrun --standalone --nproc-per-node=8 -m volano train")
    assert [point["world_size"] for point in found["curve"]] == [1, 2, 4, 8, 16, 32, 64]
    assert found["candidates"][0]["step_seconds"] > 0
    assert volano("explain", "on_paper:task", "--on", "A100 x 8", "--budget", "1KiB")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--on", "H100 x 64", "--job", "pbs"], "`--job` must be one of slurm, ray|must be one of"),
        (["--on", "H100", "--nodes", "2"], "must come with many devices"),
        (["--on", "H100", "--job", "ray"], "must come with many devices"),
        (["--on", "H100 x 24"], "must divide the batch"),
    ],
)
def test_what_cannot_be(volano, arguments, message):
    code, _, err = volano("explain", "on_paper:task", *arguments)
    assert code == 2
    assert re.search(message, err), err
