"""A trained model of clips: evaluate, generate."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from volano.apps.application import Table, TrainedModel
from volano.apps.options import DeclaredOptions, takes_options
from volano.apps.video.integrate_flow import ClipSampling
from volano.apps.video.model_spec import VideoSpec, make_network
from volano.apps.video.options import VideoGenerationOptions
from volano.apps.video.scoring.figures import (
    DEFAULT_GUIDANCE,
    distances_in_words,
    draw_predictions,
    figures_of,
    load_features,
    score_model,
)
from volano.apps.video.scoring.scores import generate_clips
from volano.apps.video.training import NUM_GENERATED, VideoTraining
from volano.data.sources import (
    PICTURE_SUFFIXES,
    SplitMember,
    choose_clip_format,
    decode_clip,
    file_key,
    is_clip,
    read_clips_like,
)
from volano.errors import DataError, RunError, UsageError, in_words
from volano.record.files import write_bytes
from volano.report import (
    MOST_IN_GRID,
    MOST_SIDE_BY_SIDE,
    enlarged,
    tiled,
    write_gif,
    write_grid,
    write_mp4,
)
from volano.running.checks import evaluation_name
from volano.training import WEIGHTS, RunFolder, build_and_load


class VideoModel(TrainedModel):
    """A model that generates clips, and predicts how they continue.

    Attributes:
        spec: its description.
        classes: the class names of the sub-folders in which the training clips lay.
    """

    generate_options: ClassVar[type[DeclaredOptions] | None] = VideoGenerationOptions

    spec: VideoSpec

    @classmethod
    def open(cls, folder: RunFolder, device: str | None = None) -> Self:
        spec = VideoSpec.of_run(folder)
        module = build_and_load(lambda: make_network(spec), folder.path / WEIGHTS)
        return cls(folder, module, device, spec=spec)

    def evaluate(self, path: str | Path | None = None) -> dict[str, Any]:
        """Computes the figures on clips.

        Args:
            path: a folder of clips (in sub-folders named like the run's classes, if it has any);
                None is the run's own test set.

        Returns:
            See ``prediction_scores`` and ``generation_scores``, with the public figures and
            ``picture``. The same stands in the run's folder as ``eval-NAME.json`` and
            ``predictions-NAME.png``.
        """
        spec = self.spec
        application = VideoTraining.from_run(self.folder)
        options = application.options
        if path is None:
            test, name, faults = application.sets.test, "test", ()
            origin = f"{application.origin}, test"
            notices = tuple(n for n in application.notices if n.startswith("changed since the run"))
        else:
            root = Path(path)
            test, faults, notices = read_clips_like(
                root, spec.clip_format, num_frames=spec.num_frames, classes=spec.classes
            )
            record = VideoTraining.splits_of(self.folder)
            if record is not None:
                files = [
                    SplitMember(file_key(root / name), "", name)
                    for name in dict.fromkeys(test.names)
                ]
                notices += record.trained_on(files, "clips")
            name, origin = evaluation_name(root), f"{len(test)} windows of clips in {root.name}"
        count = NUM_GENERATED if options.num_generated is None else options.num_generated
        net = load_features(self.folder, spec, self.device) if count else None
        result, _, more = score_model(
            application, self.module, net, test, self.device, precision="fp32", count=count
        )
        picture = self.path / ("predictions.png" if path is None else f"predictions-{name}.png")
        said = {"notices": [*notices, *more], "picture": str(picture)}
        try:
            draw_predictions(self.module, spec, test, self.device, picture)
        except (OSError, RunError) as error:  # of another person's run, say: the figures are told
            said["picture"] = None
            said["notices"].append(f"not kept: {in_words(error)}")
        result = self._evaluated(name, origin, {**result, **said}, faults)
        return {**result, **figures_of(result)}

    def describe_evaluation(self, result: Mapping[str, Any]) -> list[str | Table]:
        scored = {"model": result, **result["baselines"]}
        rows = [
            (
                result["context"] + number + 1,
                *(f"{scores['psnr'][number]:.2f}" for scores in scored.values()),
                f"{result['ssim'][number]:.3f}",
            )
            for number in range(len(result["psnr"]))
        ]
        table = Table(
            title=f"{result['num_clips']:,} clips of {result['origin']}: predicted frames, dB",
            columns=("frame", *(name.replace("_", " ") for name in scored), "SSIM of the model"),
            rows=rows,
            right=range(1 + len(scored) + 1),
        )
        drawn = result.get("picture")
        shown = [] if drawn is None else [f"real above predicted: {drawn}"]
        return [table, *distances_in_words(result), *shown]

    @takes_options(VideoGenerationOptions)
    def generate(self, **options: Any) -> dict[str, Any]:
        """Makes clips, and writes them.

        Args:
            options: see ``VideoGenerationOptions``.

        Returns:
            ``paths`` (the mp4 and gif of all clips side by side, and the grid of their frames),
            ``files`` (an mp4 for each clip), ``notices`` of what was stepped down to, and what was
            asked for, which stands in ``generated.json`` next to the clips too.

        Raises:
            UsageError: a number out of range, an unknown class, a file that does not exist, a
                folder that holds files.
            DataError: the first frames cannot be read.
        """
        given, spec = VideoGenerationOptions.of(options, "making clips"), self.spec
        frames = spec.num_frames if given.frames is None else given.frames
        _check_out(given.out)
        notices: list[str] = []
        label = _label_of(given.class_name, given.guidance, spec)
        first = None
        if given.first_frames is not None:
            first = _first_frames(Path(given.first_frames), spec, frames, notices)
        if frames > spec.num_frames:
            notices.append(
                f"{frames} frames are rolled out: windows of {spec.num_frames}, each from the "
                f"last {spec.context} of the one before"
            )
        strength = DEFAULT_GUIDANCE if given.guidance is None else given.guidance
        strength = strength if spec.classes else 1.0
        sampling = ClipSampling(
            steps=given.steps, method=given.method, guidance=strength, label=label, seed=given.seed
        )
        made = generate_clips(
            self.module, spec, self.device, count=given.clips, num_frames=frames,
            sampling=sampling, given=first,
        )  # fmt: skip
        target = _make_folder(self.path, given.out)
        settings = {
            "run": str(self.path),
            "num_clips": given.clips,
            "num_frames": frames,
            "first_frames": given.first_frames,
            "steps": given.steps,
            "method": given.method,
            "guidance": strength,
            "class": given.class_name,
            "seed": given.seed,
            "fps": given.fps or spec.fps,
        }
        _write_settings(target, settings)
        written = _write_clips(made.numpy(), target, given.fps or spec.fps, notices)
        return {**settings, **written, "notices": notices}

    def describe_generated(self, result: Mapping[str, Any]) -> list[str]:
        """Puts what :meth:`generate` returned into words for a person."""
        first = (
            f"{result['num_clips']} clips of {result['num_frames']} frames in {result['folder']}"
        )
        return [first, *(f"{kind}: {path}" for kind, path in result["paths"].items())]


# ---- generating


def _label_of(class_name: str | None, guidance: float | None, spec: VideoSpec) -> int | None:
    if not spec.classes:
        asked = "guidance" if class_name is None else f"class_name={class_name!r}"
        if class_name is not None or guidance is not None:
            raise UsageError(
                "`class_name` and `guidance` are only for runs whose clips lay in class folders",
                got=f"{asked} with a run without",
            )
        return None
    if class_name is None:
        return None
    if class_name not in spec.classes:
        raise UsageError(
            "`class_name` must be one of the run's classes", got=repr(class_name),
            remedy=f"The run knows {', '.join(spec.classes[:20])}",
        )  # fmt: skip
    return spec.classes.index(class_name)


def _first_frames(path: Path, spec: VideoSpec, num_frames: int, notices: list[str]) -> Tensor:
    """The frames of a file that are given, uint8 [K, C, S, S]: its first ``context``, or all if
    it has fewer."""
    if not path.is_file():
        raise UsageError("`first_frames` must name a file", got=f"{path}, which is not there")
    is_picture = path.suffix.lower() in PICTURE_SUFFIXES
    if not is_picture and not is_clip(path.name):
        raise UsageError(
            "`first_frames` must name a clip or a picture (.mp4, .gif, .png, ...)", got=str(path)
        )
    try:
        fps = None if is_picture else spec.fps  # a picture has no rate that could be said to change
        _, changes = choose_clip_format(
            [path], spec.num_frames, size=spec.size, fps=fps, channels=spec.channels
        )
        frames = torch.from_numpy(decode_clip(path, spec.clip_format))[: 1 if is_picture else None]
    except (OSError, DataError) as error:
        raise DataError("The first frames must be readable", got=f"{path}: {error}") from error
    most = min(spec.context, num_frames - 1)
    if most < 1:
        raise UsageError(
            "Clips that continue first frames must have at least two frames",
            got=f"{num_frames} frames",
        )
    notices += changes
    if len(frames) > most:
        notices.append(f"the first {most} of {len(frames)} frames are given")
    if min(most, len(frames)) < spec.context:
        notices.append(
            f"{min(most, len(frames))} first frames; the model was tested with {spec.context}"
        )
    return frames[:most]


def _check_out(out: str | Path | None) -> None:
    """Raises, before clips are made, if they could not be written or would lie among others."""
    if out is None:
        return
    target = Path(out)
    if target.exists() and not target.is_dir():
        raise UsageError(
            "`out` must name a folder that can be made", got=f"{target}, which is a file"
        )
    if target.is_dir() and any(target.iterdir()):
        raise UsageError(
            "`out` must name a new folder, or an empty one",
            got=f"{target}, which holds files",
            remedy="Leave it away for the next folder in the run's own",
        )


def _make_folder(run: Path, out: str | Path | None) -> Path:
    """Makes ``out``, or the first of generated-1, generated-2, ... that is not there yet."""
    try:
        if out is not None:
            Path(out).mkdir(parents=True, exist_ok=True)
            return Path(out)
        for number in itertools.count(1):
            with contextlib.suppress(FileExistsError):
                (run / f"generated-{number}").mkdir()
                return run / f"generated-{number}"
    except OSError as error:
        raise UsageError(
            "`out` must name a folder that can be made", got=f"{out or run}: {error.strerror}"
        ) from error
    raise AssertionError("numbers do not end")


def _write_clips(made: np.ndarray, target: Path, fps: float, notices: list[str]) -> dict[str, Any]:
    """Writes the clips one by one, side by side and as a grid; returns where they are."""
    side_by_side = tiled(made)
    said = [write_gif(side_by_side, target / "clips.gif", fps=fps)]
    paths = {"gif": str(target / "clips.gif"), "grid": str(write_grid(made, target / "grid.png"))}
    said.append(write_mp4(side_by_side, target / "clips.mp4", fps=fps))
    files = []
    for number, clip in enumerate(made):
        file = target / f"clip-{number:03d}.mp4"
        write_mp4(enlarged(clip), file, fps=fps)
        files.append(file)
    if (target / "clips.mp4").is_file():
        paths["mp4"] = str(target / "clips.mp4")
    notices += [text for text in said if text is not None]
    for names, most in (
        ("clips.gif and clips.mp4 show", MOST_SIDE_BY_SIDE),
        ("grid.png shows", MOST_IN_GRID),
    ):
        if len(made) > most:
            notices.append(f"{names} the first {most} of {len(made)} clips")
    return {
        "folder": str(target),
        "paths": paths,
        "files": [str(file) for file in files if file.is_file()],
    }


def _write_settings(target: Path, settings: dict[str, Any]) -> None:
    try:
        write_bytes(target / "generated.json", (json.dumps(settings, indent=1) + "\n").encode())
    except OSError as error:
        raise RunError(
            "A clip's settings must be writable", got=f"{target}: {error}", remedy="Make room"
        ) from error
