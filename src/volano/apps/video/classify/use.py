"""A trained classifier of clips: evaluate, predict, export."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from volano.apps.application import Table, TrainedModel
from volano.apps.export import (
    HF,
    SAMPLES,
    export_classifier,
    export_folder,
    export_place,
    samples_of,
)
from volano.apps.predictions import Predictions
from volano.apps.video.classify.augment import KEPT_FOR_EACH, looked_at
from volano.apps.video.classify.model_spec import (
    ClipClassesSpec,
    build_again,
    load_classifier_of_clips,
    predict_frames,
)
from volano.apps.video.classify.training import ClipClassifyTraining
from volano.data import Fault, check_readable
from volano.data.sources import (
    SplitMember,
    decode_clip,
    file_key,
    files_to_predict,
    is_clip,
    listed_clips,
    read_clips_like,
    spread_frames,
)
from volano.errors import DataError
from volano.running.checks import evaluation_name
from volano.training import RunFolder


class ClipClassifyModel(TrainedModel):
    """A classifier of clips.

    Attributes:
        spec: its description.
        classes: the class names, in the order of the logits.
        module: bytes uint8 [N, frames, channels, size, size] in, logits fp32 [N, classes] out.
    """

    spec: ClipClassesSpec

    @classmethod
    def open(cls, folder: RunFolder, device: str | None = None) -> Self:
        spec = ClipClassesSpec.of_run(folder)
        return cls(folder, load_classifier_of_clips(spec, folder.path), device, spec=spec)

    def evaluate(self, path: str | Path | None = None) -> dict[str, Any]:
        """Computes the figures on clips.

        Args:
            path: clips in folders named like the run's classes, or a table of them (the test part
                if it names one); None is the run's own test set.

        Returns:
            See ``OneClass.scores``. The same stands in the run's folder as
            ``eval-NAME.json``.
        """
        spec = self.spec
        if path is None:
            again = ClipClassifyTraining.from_run(self.folder)
            test, name, origin, faults = again.test, "test", f"{again.origin}, test", again.faults
            notices = tuple(n for n in again.notices if n.startswith("changed since the run"))
        else:
            root = Path(path)
            test, faults, notices = read_clips_like(
                root, spec.clip_format, num_frames=KEPT_FOR_EACH * spec.num_frames,
                classes=spec.classes, whole=True,
            )  # fmt: skip
            name, origin = evaluation_name(root), f"{len(test)} clips in {root.name}"
            record = ClipClassifyTraining.splits_of(self.folder)
            if record is not None:
                base = root if root.is_dir() else root.parent
                files = [SplitMember(file_key(base / clip), "", clip) for clip in test.names]
                notices += record.trained_on(files, "clips")
        logits = predict_frames(self.module, looked_at(test.frames), self.device)
        scores = spec.answers.scores(logits, test.labels)
        return self._evaluated(name, origin, {**scores, "notices": list(notices)}, faults)

    def describe_evaluation(self, result: Mapping[str, Any]) -> list[str | Table]:
        return self.spec.answers.tables(result, "clips")

    def predict(self, clips: str | Path | Sequence[str | Path], *, top_k: int = 3) -> Predictions:
        """Predicts the likeliest classes of clips: files, and those in folders.

        Raises:
            UsageError: a file does not exist or is not named like a clip.
            DataError: none could be read.
        """
        given = [clips] if isinstance(clips, str | Path) else clips
        files, notices = files_to_predict(
            given, listed_clips, is_clip, what="clips", one="a clip (.mp4, .gif, ...)"
        )
        frames, names, faults = self._read(files)
        logits = predict_frames(self.module, frames, self.device)
        return Predictions.of(self, logits, names, top_k, faults, notices)

    def export(self, to: str, out: str | Path | None = None) -> dict[str, Any]:
        """Writes the classifier as safetensors, pt2 or onnx, loads it back and compares
        predictions.

        The exported program takes bytes uint8 [N, frames, channels, size, size] and gives logits
        [N, classes].
        """
        target = export_place(self.path, to, out)
        samples = samples_of(self.path / SAMPLES, "clips")
        fresh, module = build_again(self.spec, self.path), copy.deepcopy(self.module).cpu()
        about = {
            "run": str(self.path),
            "classes": list(self.classes),
            "input": list(samples.shape[1:]),
        }
        write = functools.partial(export_classifier, module, fresh, samples, names=("clips",))
        if to == HF:
            return {**about, **export_folder(write, self.folder, target, about)}
        return {**about, **write(to, target)}

    def _read(self, files: Sequence[Path]) -> tuple[Tensor, list[str], tuple[Fault, ...]]:
        """Returns the frames that are looked at, uint8 [N, T, C, S, S], of the files that can be
        read, their names, and the others."""
        kept = KEPT_FOR_EACH * self.spec.num_frames
        read: list[np.ndarray] = []
        names: list[str] = []
        faults: list[Fault] = []
        for place, file in enumerate(files):
            try:
                read.append(spread_frames(decode_clip(file, self.spec.clip_format), kept))
                names.append(str(file))
            except (OSError, DataError) as error:
                faults.append(Fault(place, str(file), str(error)))
        check_readable(len(read), "clips", faults)
        return looked_at(torch.from_numpy(np.stack(read))), names, tuple(faults)
