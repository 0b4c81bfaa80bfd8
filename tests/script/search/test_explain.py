"""A whole script, explained."""

from __future__ import annotations

import pytest

from volano.script.remembered import Script
from volano.script.search.explain import explain_script

SCRIPT = """\
import sys, time, torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

class Slow(Dataset):
    def __len__(self):
        return 400
    def __getitem__(self, index):
        time.sleep(0.002)
        return torch.randn(8), index % 2

model = nn.Linear(8, 2)
optimizer = torch.optim.AdamW(model.parameters(), lr=float(sys.argv[1]))
loader = DataLoader(Slow(), batch_size=4)
total = 0.0
for epoch in range(100):
    for x, y in loader:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        print(total)
"""


def test_where_the_time_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)
    lines = []
    command = Script(target="train.py", arguments=("0.1",))
    found = explain_script(command, seconds=10, steps=20, say=lines.append)
    assert found.num_steps == 20
    assert sum(part.share for part in found.parts) == pytest.approx(1)
    waits = found.part("data")
    assert (waits.places[0].file, waits.places[0].line) == ("train.py", 17)
    assert waits.share > 0.5
    assert waits.seconds >= 0.008
    read = found.part("read").places[0]
    assert (read.file, read.line, read.count) == ("train.py", 22, 1)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "waiting for data" in text
    assert "train.py:17" in text
    assert "Slow (train.py:8), no workers" in text
    assert "train.py:22" in text
    assert found.peak_bytes is not None
    assert found.to_json()["chosen"] == {"schema_version": 1}
