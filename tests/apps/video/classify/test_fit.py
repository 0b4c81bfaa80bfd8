import dataclasses

import volano
from volano.apps.video.classify.fit import begun_on
from volano.apps.video.classify.options import ClipClassifyOptions
from volano.apps.video.classify.training import ClipClassifyTraining
from volano.device import Device


def test_without_a_pretrained_network_nothing_is_solved(application):
    assert begun_on(application, Device("cpu")) == (application, ())


def test_a_pretrained_networks_head_is_solved_once(folder):
    options = ClipClassifyOptions(path=str(folder), num_frames=4, from_="pretrained_networks:small")
    begun, (trainable, expected) = begun_on(ClipClassifyTraining.read(options), Device("cpu"))
    assert trainable == "trainable: 34 of 1,474 parameters"
    assert expected.startswith("accuracy to expect of a linear head: ")
    again, _ = begun_on(dataclasses.replace(begun, start=begun.start), Device("cpu"))
    assert again.begun.probe.c == begun.begun.probe.c


def test_a_run_of_some_seconds(folder, tmp_path):
    run = volano.train(
        "video", folder, classify=True, num_frames=4, minutes=0.05, out=tmp_path / "run",
        plan=volano.Plan.baseline(), observer=volano.Observer(),
    )  # fmt: skip
    assert run.status == "finished"
    assert any("of the clip network at 4 clips a step" in notice for notice in run.notices)
