"""The text application with a pretrained language model: trained further, whole or by adapters."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from volano.apps.application import Finished, Fitted, TimeLimit
from volano.apps.text.causal.training import CausalTraining
from volano.apps.text.causal.use import CausalModel, held_out_figures
from volano.device import Device
from volano.plan import Plan
from volano.pretrained.causal_networks import CausalLogits
from volano.pretrained.network_references import LORA
from volano.pretrained.tuning import trainable_in_words
from volano.report.verdict import Score
from volano.task import Task
from volano.training import Run, RunFolder


@dataclass(frozen=True, kw_only=True)
class CausalApplication(CausalTraining):
    """A text and a pretrained language model to train on it, to the final test."""

    model_type = CausalModel
    next_words = ("generate RUN --prompt TEXT", "export RUN --to hf")

    def fit(self, limit: TimeLimit) -> Fitted:
        """Finds the plan and the number of steps that suit the time, at most five passes."""
        return self._told(limit, super().fit(limit))

    def fit_epochs(self, limit: TimeLimit, epochs: float) -> Fitted:
        return self._told(limit, super().fit_epochs(limit, epochs))

    def finish(self, run: Run, task: Task) -> Finished:  # noqa: ARG002 - of the contract
        """Scores the held-out text before and after."""
        if run.status != "finished":
            return Finished()
        device, model = Device(run.plan.device), run.model
        assert isinstance(model, CausalLogits)
        after = held_out_figures(model.network, self, device)
        before = held_out_figures(
            self.network.module.to(device.torch_device), self, device
        )["bits_per_byte"]  # fmt: skip
        self.network.module.cpu()
        RunFolder(run.path).write_json("eval-test.json", {"origin": self.origin, **after})
        metrics = {
            "bits_per_byte": after["bits_per_byte"], "perplexity": after["perplexity"],
            "bits_per_byte_before": before, "num_test_bytes": after["num_bytes"],
        }  # fmt: skip
        score = Score(
            name="bits per byte", value=after["bits_per_byte"],
            trivial={"the network as it was": before}, is_more_better=False,
        )  # fmt: skip
        return Finished(metrics=metrics, score=score)

    @staticmethod
    def summary(run: Run) -> list[str]:
        """Returns the bits per byte, with those of the network as it was."""
        metrics = run.metrics
        return [
            f"bits per byte {metrics['bits_per_byte']:.4f} on {metrics['num_test_bytes']:,} "
            f"held-out bytes; before {metrics['bits_per_byte_before']:.4f}"
        ]

    def _told(self, limit: TimeLimit, fitted: Fitted) -> Fitted:
        trainable = trainable_in_words(self.task(1), Plan.baseline(limit.planning.place.name))
        why = "adapters of rank 8 keep what the network knows and take little memory"
        why = why if self.options.tune is None else "as asked"
        reason = f"{trainable}; tune={self.tune}: {why}"
        rank = ("adapters are added to the weights when the run is used",) * (self.tune == LORA)
        return dataclasses.replace(
            fitted,
            application=self.with_options(tune=self.tune),
            reasons=(reason, *rank, *fitted.reasons),
        )
