"""A fine-tuning that was interrupted goes on to the same weights, from its folder."""

import pytest
import torch

import volano


class Stop(volano.Observer):
    """Interrupts at an evaluation."""

    def on_evaluation(self, record):
        if record["step"] >= 8:
            raise KeyboardInterrupt


@pytest.mark.parametrize("options", [{"tune": "head"}, {"tune": "all", "keep": "best"}])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, options):
    common = {
        "from_": "pretrained_networks:small", "epochs": 2, "batch_size": 250, "flip": "no",
        "plan": volano.Plan.baseline("cpu"), **options,
    }  # fmt: skip
    whole = volano.train("image", out=tmp_path / "whole", **common)
    safety = volano.Safety(save_every="2st")
    with pytest.raises(KeyboardInterrupt):
        volano.train("image", out=tmp_path / "cut", observer=Stop(), safety=safety, **common)
    again = volano.resume(tmp_path / "cut")
    assert again.metrics["test_accuracy"] == whole.metrics["test_accuracy"]
    pairs = zip(again.model.state_dict().values(), whole.model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
