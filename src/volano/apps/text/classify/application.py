"""The text application with ``classify``: trains a classifier of labelled texts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from volano.apps.application import Finished, Fitted
from volano.apps.targets.find_target import figures_in_words
from volano.apps.text.classify.fit import fit_encoder, fit_into
from volano.apps.text.classify.model_spec import ENCODER, predict_texts
from volano.apps.text.classify.training import ClassifyTraining
from volano.apps.text.classify.use import ClassifyModel
from volano.device import Device
from volano.pretrained.network_references import HEAD
from volano.running.time_limit import TimeLimit
from volano.task import Task
from volano.training import Run, RunFolder


@dataclass(frozen=True, kw_only=True)
class ClassifyApplication(ClassifyTraining):
    """The labelled texts and a classifier to train on them, from the choice of its kind to the
    final test."""

    model_type = ClassifyModel
    next_words = ("eval RUN", "predict RUN FILES...")

    def fit(self, limit: TimeLimit) -> Fitted:
        """Trains both kinds of classifier on what is not held back, in the time, and keeps the
        better; or fine-tunes the pretrained encoder that was named."""
        return fit_into(self, limit) if self.encoder is None else fit_encoder(self, limit)

    def fit_epochs(self, limit: TimeLimit, epochs: float) -> Fitted:
        """Fine-tunes the pretrained encoder for a number of passes over the texts."""
        return fit_encoder(self, limit, epochs)

    def finish(self, run: Run, task: Task) -> Finished:  # noqa: ARG002 - of the contract
        if run.status != "finished":
            return Finished()
        spec, folder = self.spec, RunFolder(run.path)
        tokenizer = None if self.head is None else self.head.tokenizer
        tokenizer = tokenizer if self.encoder is None else self.encoder.tokenizer
        cut: list[str] = []
        logits = predict_texts(
            run.model, spec, self.test.texts, Device(run.plan.device), tokenizer, said=cut
        )
        target = spec.answers
        scores = target.scores(logits, torch.from_numpy(self.test.labels))
        choice = {"candidates": spec.candidates, "kept": spec.kept}
        folder.write_json("eval-test.json", {"origin": f"{self.origin}, test", **scores, **choice})
        expected = {} if self.encoder is None else self.begun.probe.figures
        metrics = {**target.final_figures(scores), **expected, **choice}
        is_solved = self.encoder is not None and self.tune == HEAD
        score = dataclasses.replace(target.score(scores), is_solved=is_solved)
        return Finished(metrics=metrics, score=score, notices=[f"test: {text}" for text in cut])

    @staticmethod
    def summary(run: Run) -> list[str]:
        """The figures of the final test with those of the trivial answer, and the choice."""
        metrics = run.metrics
        lines = figures_in_words(metrics, "texts")
        if metrics["kept"] == ENCODER:  # which was named, not chosen
            return lines
        figures = ", ".join(
            f"{name} {figure:.4f}" for name, figure in metrics["candidates"].items()
        )
        return [*lines, f"kept: {metrics['kept']}   (to choose: {figures})"]
