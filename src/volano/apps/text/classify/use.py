"""A trained classifier of texts: evaluate, predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch

from volano.apps.application import Table, TrainedModel
from volano.apps.export import export_place
from volano.apps.predictions import Predictions
from volano.apps.text.classify.encoder import tokenizer_of_run
from volano.apps.text.classify.export import export_encoder
from volano.apps.text.classify.model_spec import ClassesSpec, predict_texts
from volano.apps.text.classify.training import ClassifyTraining
from volano.apps.text.tokenizer import Tokenizer, load_tokenizer
from volano.data import check_readable
from volano.data.sources import read_labelled_texts, read_texts
from volano.pretrained.text_encoders import EncoderTokenizer
from volano.running.checks import evaluation_name
from volano.training import WEIGHTS, RunFolder, build_and_load


class ClassifyModel(TrainedModel):
    """A classifier of texts.

    Attributes:
        spec: its description.
        classes: the class names, in the order of the logits; names of labels or numbers.
    """

    spec: ClassesSpec
    _tokenizer: Tokenizer | EncoderTokenizer | None = None

    @classmethod
    def open(cls, folder: RunFolder, device: str | None = None) -> Self:
        spec = ClassesSpec.of_run(folder)
        model = cls(folder, build_and_load(spec.build, folder.path / WEIGHTS), device, spec=spec)
        if spec.encoder is not None:
            model._tokenizer = tokenizer_of_run(folder.path, spec.encoder)
        elif spec.tokenizer_digest is not None:
            model._tokenizer = load_tokenizer(folder.path / "tokenizer.json", spec.tokenizer_digest)
        return model

    def evaluate(self, path: str | Path | None = None) -> dict[str, Any]:
        """Computes the figures on texts.

        Args:
            path: labelled texts of the run's classes (their test set if they name one); None is the
                run's own test set.

        Returns:
            See ``scores`` of the target's kind. The same stands in the run's folder as
            ``eval-NAME.json``.
        """
        spec = self.spec
        if path is None:
            test, origin, notices = ClassifyTraining.test_of_run(self.folder)
            name, origin, faults = "test", f"{origin}, test", ()
        else:
            sets = read_labelled_texts(
                Path(path), classes=spec.classes, least_classes=1, target=spec.answers.format()
            )
            test, name, origin = sets.test or sets.train, evaluation_name(path), sets.origin
            faults, notices = sets.faults, sets.notices
            record = ClassifyTraining.splits_of(self.folder)
            if record is not None:
                notices += record.trained_on(test.members(), "texts")
        cut: list[str] = []
        logits = predict_texts(
            self.module, spec, test.texts, self.device, self._tokenizer, said=cut
        )
        scores = spec.answers.scores(logits, torch.from_numpy(test.labels))
        choice = {"candidates": spec.candidates, "kept": spec.kept, "notices": [*notices, *cut]}
        return self._evaluated(name, origin, {**scores, **choice}, faults)

    def describe_evaluation(self, result: Mapping[str, Any]) -> list[str | Table]:
        return self.spec.answers.tables(result, "texts")

    def predict(
        self,
        files: str | Path | Sequence[str | Path] = (),
        *,
        texts: str | Sequence[str] = (),
        top_k: int = 3,
    ) -> Predictions:
        """Predicts the likeliest classes, the labels or the numbers of texts.

        Args:
            files: text files, folders of them, and tables, of whose rows each is a text.
            texts: texts themselves, behind those of files.
            top_k: classes of each; labels whose probabilities are told.

        Raises:
            UsageError: a file does not exist.
            DataError: none could be read.
        """
        given = [files] if isinstance(files, str | Path) else files
        found, faults, notices = read_texts([Path(file) for file in given])
        own = [texts] if isinstance(texts, str) else texts
        found += [(f"text {place}", text) for place, text in enumerate(own)]
        check_readable(len(found), "texts", faults)
        cut: list[str] = []
        every = [text for _, text in found]
        logits = predict_texts(
            self.module, self.spec, every, self.device, self._tokenizer, said=cut
        )
        names = [name for name, _ in found]
        return Predictions.of(self, logits, names, top_k, faults, (*notices, *cut))

    def export(self, to: str, out: str | Path | None = None) -> dict[str, Any]:
        """Writes a classifier on a pretrained encoder as safetensors or pt2, or as a folder of
        transformers (hf), loads it back and compares; see ``export_encoder``."""
        target = export_place(self.path, to, out)
        found = export_encoder(self.module, self.spec, self._tokenizer, self.folder, to, target)
        about = {"run": str(self.path), "classes": list(self.classes)}
        return {**about, "target": self.spec.answers.kind, **found}
