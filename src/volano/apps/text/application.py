"""The text application: trains a language model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from volano.apps.application import Finished, Fitted
from volano.apps.text.corpus import HELD_FILE, TRAIN_FILE
from volano.apps.text.fit import fit_into
from volano.apps.text.scores import scores_in_words
from volano.apps.text.training import TextTraining
from volano.apps.text.use import TextModel
from volano.record.files import write_bytes, written
from volano.report.verdict import Score
from volano.running.time_limit import TimeLimit
from volano.task import Task
from volano.training import Run, RunFolder


@dataclass(frozen=True, kw_only=True)
class TextApplication(TextTraining):
    """A text and a language model to train on it, from the time that there is to the final test."""

    model_type = TextModel
    next_words = ("generate RUN --prompt TEXT", "eval RUN PATH")

    def fit(self, limit: TimeLimit) -> Fitted:
        """Finds the depth, the batch, the plan and the number of steps that suit the time."""
        return fit_into(self, limit)

    def write(self, folder: RunFolder, scratch: Path | None) -> None:
        """Writes description and tokenizer, and moves the tokens."""
        assert scratch is not None
        folder.write_json(self.spec.file, self.spec.to_json())
        write_bytes(folder.path / "tokenizer.json", self.tokenizer.to_bytes())
        # They are mapped; a rename leaves the mapping as it is.
        for name in (TRAIN_FILE, HELD_FILE):
            with written(folder.path / name) as partial:
                shutil.move(scratch / name, partial)

    def finish(self, run: Run, task: Task) -> Finished:  # noqa: ARG002 - of the contract
        """Scores the whole held-out text of a finished run."""
        if run.status != "finished":
            return Finished()
        folder = RunFolder(run.path)
        scores = self.held_out_scores(run.model, run.plan)
        folder.write_json("eval-test.json", scores)
        metrics = {
            name: scores[name] for name in ("bits_per_byte", "perplexity", "bytes_per_token")
        }
        metrics |= {f"bits_per_byte_{name}": value for name, value in scores["baselines"].items()}
        metrics["num_test_bytes"] = scores["num_bytes"]
        metrics["tokens_per_second"] = self._tokens_per_second(folder)
        score = Score(
            name="bits per byte",
            value=scores["bits_per_byte"],
            trivial=scores["baselines"],
            is_more_better=False,
        )
        return Finished(metrics=metrics, score=score)

    @staticmethod
    def summary(run: Run) -> list[str]:
        """Returns the bits per byte, with those of compressors."""
        return scores_in_words(run.metrics, "held-out bytes")

    def _tokens_per_second(self, folder: RunFolder) -> float | None:
        """The median over the logged lines, as training throughput."""
        rates = sorted(
            line["examples_per_second"]
            for line in folder.read_lines("metrics.jsonl")
            if "lr" in line
        )
        return round(rates[len(rates) // 2] * self.spec.context, 1) if rates else None
