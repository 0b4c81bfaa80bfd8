"""The video application with ``classify``: trains a classifier of clips."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from volano.apps.application import Application, Finished, Fitted
from volano.apps.targets.find_target import figures_in_words
from volano.apps.video.classify.augment import looked_at
from volano.apps.video.classify.fit import begun_on, fit_into
from volano.apps.video.classify.model_spec import predict_frames
from volano.apps.video.classify.training import ClipClassifyTraining
from volano.apps.video.classify.use import ClipClassifyModel
from volano.device import Device
from volano.running.time_limit import TimeLimit
from volano.task import Task
from volano.training import Run, RunFolder, settings_of


@dataclass(frozen=True, kw_only=True)
class ClipClassifyApplication(ClipClassifyTraining):
    """The clips in classes and a classifier to train on them, from the time that there is to the
    final test."""

    model_type = ClipClassifyModel
    next_words = ("eval RUN", "predict RUN CLIPS...", "export RUN --to onnx")

    def fit(self, limit: TimeLimit) -> Fitted:
        return fit_into(self, limit)

    def fit_epochs(self, limit: TimeLimit, epochs: float) -> Fitted:
        application, said = begun_on(self, limit.planning.place)
        fitted = Application.fit_epochs(application, limit, epochs)
        return dataclasses.replace(fitted, reasons=(*said, *fitted.reasons))

    def finish(self, run: Run, task: Task) -> Finished:  # noqa: ARG002 - of the contract
        if run.status != "finished":
            return Finished()
        device = Device(run.plan.device)
        with settings_of(run.plan, device):
            logits = predict_frames(
                run.model, looked_at(self.test.frames), device, precision=run.plan.precision
            )
        target, folder = self.spec.answers, RunFolder(run.path)
        scores = target.scores(logits, self.test.labels)
        folder.write_json("eval-test.json", {"origin": f"{self.origin}, test", **scores})
        score = dataclasses.replace(target.score(scores), is_solved=self.network is not None)
        expected = {} if self.network is None else self.begun.probe.figures
        return Finished(metrics={**target.final_figures(scores), **expected}, score=score)

    @staticmethod
    def summary(run: Run) -> list[str]:
        """The test accuracy, with that of the trivial answer."""
        which = "held-out test clips" if run.details["is_held_out"] else "test clips"
        return figures_in_words(run.metrics, which)
