"""The image application: trains a classifier of images."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass

from volano.apps.application import Finished, Fitted
from volano.apps.export import SAMPLES
from volano.apps.image.fit import begun_into, fit_into
from volano.apps.image.pictures import write_pictures
from volano.apps.image.scores import predict_labelled
from volano.apps.image.training import ImageTraining
from volano.apps.image.use import ImageModel
from volano.apps.targets.find_target import figures_in_words
from volano.device import Device
from volano.running.time_limit import TimeLimit
from volano.task import Task
from volano.training import Run, RunFolder, save_tensors, settings_of

_NUM_SAMPLES = 64


@dataclass(frozen=True, kw_only=True)
class ImageApplication(ImageTraining):
    """An application: images and a classifier to train on them, from the time that there is to the
    final test."""

    model_type = ImageModel
    next_words = ("eval RUN", "predict RUN FILES...", "export RUN --to pt2")

    def fit(self, limit: TimeLimit) -> Fitted:
        """Finds the size of the network, the plan and the number of steps that suit the time."""
        if self.network is None:
            return fit_into(self, limit)
        begun, reasons = begun_into(self, limit)
        fitted = fit_into(begun, limit)
        return dataclasses.replace(fitted, reasons=(*reasons, *fitted.reasons))

    def fit_epochs(self, limit: TimeLimit, epochs: float) -> Fitted:
        if self.network is None:
            return super().fit_epochs(limit, epochs)
        begun, reasons = begun_into(self, limit, epochs)
        fitted = ImageTraining.fit_epochs(begun, limit, epochs)
        return dataclasses.replace(fitted, reasons=(*reasons, *fitted.reasons))

    def finish(self, run: Run, task: Task) -> Finished:
        """Tests a finished run, and draws what its report shows."""
        folder, test, spec = RunFolder(run.path), self.tested, self.spec
        pixels, samples = test.first(_NUM_SAMPLES)
        save_tensors(
            {"images": pixels.contiguous(), "labels": samples.labels.contiguous()},
            run.path / SAMPLES,
        )
        if run.status != "finished":
            return Finished()
        device = Device(run.plan.device)
        with settings_of(run.plan, device):
            views = spec.views(further=self.options.views is not False)
            logits, labels, faults = predict_labelled(
                run.model, test, device, views, precision=run.plan.precision
            )
        scores = spec.answers.scores(logits, labels)
        for fault in faults[len(test.faults) :]:  # of files that were not read before
            folder.append("quarantine.jsonl", {"set": "test", **asdict(fault)})
        notices = write_pictures(folder, self, task, logits, labels, scores, faults, device)
        return Finished(
            metrics={**spec.answers.final_figures(scores), **self.expected},
            notices=notices,
            score=dataclasses.replace(spec.answers.score(scores), is_solved=self.is_solved),
        )

    @staticmethod
    def summary(run: Run) -> list[str]:
        """The figures of the final test, with those of the trivial answer."""
        held_out = "held-out " if run.details["is_held_out"] else ""
        return figures_in_words(run.metrics, f"{held_out}test images")
