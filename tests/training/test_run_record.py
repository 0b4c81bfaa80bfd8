"""What a run leaves in its folder while it trains."""

import json

import torch

import volano
from volano.data import Fault
from volano.training import Observer, RunFolder
from volano.training.run_record import FaultList, RunKeeper


def test_corrupt_examples_are_listed_in_the_run(make_task, quiet, tmp_path, digits):
    pixels, labels = digits

    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 128

        def __getitem__(self, index):
            if index == 77:
                raise ValueError("bad header")
            return pixels[index], labels[index]

    run = volano.train(make_task(data=Broken(), valid=None), out=tmp_path / "run", observer=quiet)
    (record,) = [
        json.loads(line) for line in (run.path / "quarantine.jsonl").read_text().splitlines()
    ]
    assert record == {"set": "data", "index": 77, "path": None, "reason": "ValueError: bad header"}
    assert any("example 77 of data: ValueError: bad header" in notice for notice in run.notices)


class Hearing(Observer):
    def __init__(self):
        self.notices = []

    def on_notice(self, text):
        self.notices.append(text)


def folder_at(path):
    folder = RunFolder(path)
    folder.make()
    return folder


def test_the_first_few_faults_are_told_and_each_is_listed_once(tmp_path):
    folder, hearing = folder_at(tmp_path / "run"), Hearing()
    faults = FaultList(folder, hearing)
    for index in (1, 2, 1, 3, 4):
        faults("data", Fault(index=index, path=None, reason="bad header"))
    assert [record["index"] for record in folder.read_lines("quarantine.jsonl")] == [1, 2, 3, 4]
    assert len(hearing.notices) == 3
    assert hearing.notices[-1].endswith("bad header; more go to quarantine.jsonl")
    assert faults.num_of_others() == 0
    folder.append("quarantine.jsonl", {"set": "data", "index": 9, "path": None, "reason": ""})
    assert faults.num_of_others() == 1


def test_figures_are_those_of_the_last_lines(tmp_path):
    keeper = RunKeeper(folder_at(tmp_path / "run"))
    keeper.on_log({"step": 1, "loss": 2.0, "lr": 0.1})
    keeper.on_evaluation({"step": 1, "valid_loss": 3.0})
    keeper.on_log({"step": 2, "loss": 1.0, "lr": 0.1})
    for text in ("once", "twice", "twice"):
        keeper.on_notice(text)
    assert keeper.metrics == {"train_loss": 1.0, "valid_loss": 3.0}
    assert keeper.notices == ["once", "twice"]
