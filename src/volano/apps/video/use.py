"""What is done with a run of the video application: its final figures and pictures, eval, generate."""

from __future__ import annotations

import contextlib
import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from volano.apps.video.application import LEAST_FPS, NUM_GENERATED, read_video_application
from volano.apps.video.figures import (
    DEFAULT_GUIDANCE,
    draw_predictions,
    figures_of,
    load_features,
    options_of,
    score_model,
)
from volano.apps.video.model_spec import VideoSpec, make_network
from volano.apps.video.sampler import METHODS, ClipSampling
from volano.apps.video.scores import generate_clips
from volano.data.sources import PICTURE_SUFFIXES, choose_clip_format, decode_clip, is_clip, read_clips_like
from volano.device import Device
from volano.errors import DataError, RunError, UsageError
from volano.report import MOST_IN_GRID, MOST_SIDE_BY_SIDE, enlarged, tiled, write_gif, write_grid, write_mp4
from volano.running.checks import check_ended, evaluation_name
from volano.running.train import kind_of
from volano.training import RunFolder, load_weights


def eval_video(path: str | Path, clips: str | Path | None = None, *, device: str | None = None) -> dict[str, Any]:
    """Figures of a run's model.

    Args:
        path: the run's folder.
        clips: a folder of clips (in sub-folders named like the run's classes, where it has any); None is the run's own
            test set.
        device: as torch writes it.

    Returns:
        See ``prediction_scores`` and ``generation_scores``, with the public figures and ``picture``. The same stands
        in the run's folder as ``eval-NAME.json`` and ``predictions-NAME.png``.
    """
    folder, spec, model = open_video(path)
    place = Device(device)
    model = model.to(place.torch_device)
    options = options_of(folder)
    application = read_video_application(options)
    if clips is None:
        test, name, origin, faults, notices = application.sets.test, "test", f"{application.sets.origin}, test", (), ()
    else:
        root = Path(clips)
        test, faults, notices = read_clips_like(
            root, spec.clip_format, num_frames=spec.num_frames, classes=spec.classes
        )
        name, origin = evaluation_name(root), f"{len(test)} windows of clips in {root.name}"
    count = NUM_GENERATED if options.num_generated is None else options.num_generated
    net = load_features(folder, spec, place) if count else None
    result, _, more = score_model(application, model, net, test, place, precision="fp32", count=count)
    picture = folder.path / ("predictions.png" if clips is None else f"predictions-{name}.png")
    draw_predictions(model, spec, test, place, picture)
    result = {"run": str(folder.path), "origin": origin, **result, "picture": str(picture)}
    result["unreadable"] = [asdict(fault) for fault in faults]
    folder.write_json(f"eval-{name}.json", result)
    return {**result, **figures_of(result), "notices": [*notices, *more]}


def generate_video(
    path: str | Path,
    *,
    clips: int = 16,
    steps: int = 20,
    frames: int | None = None,
    first_frames: str | Path | None = None,
    class_name: str | None = None,
    guidance: float | None = None,
    method: str = "euler",
    fps: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Makes clips, and writes them.

    Args:
        path: the run's folder.
        clips: how many.
        steps: of the integration from noise to pictures.
        frames: of each clip; None is the model's window. More than the window is rolled out, window by window.
        first_frames: a clip or a picture of which the made ones are continuations.
        class_name: one of the run's classes; None draws them as often as they occur.
        guidance: see ``ClipSampling``; None is 1.5 where there are classes.
        method: "euler" or "heun".
        fps: frames a second of the files written; None is the training clips'.
        seed: of the noise; clip k is the same however many are made.
        out: a new or empty folder; None is the next of ``generated-1``, ``generated-2``, ... in the run's folder.
        device: as torch writes it.

    Returns:
        ``paths`` (the mp4 and gif of all clips side by side, and the grid of their frames), ``files`` (an mp4 for each
        clip), ``notices`` of what was stepped down to, and what was asked for, which
        stands in ``generated.json`` beside the clips too.

    Raises:
        UsageError: a number out of range, an unknown class, a file that does not exist, a folder that holds files.
        DataError: the first frames cannot be read.
    """
    folder, spec, model = open_video(path)
    frames = spec.num_frames if frames is None else frames
    _check_numbers(clips=clips, steps=steps, frames=frames, fps=fps, method=method, guidance=guidance, seed=seed)
    _check_out(out)
    notices: list[str] = []
    label = _label_of(class_name, guidance, spec)
    given = None if first_frames is None else _first_frames(Path(first_frames), spec, frames, notices)
    if frames > spec.num_frames:
        notices.append(
            f"{frames} frames are rolled out: windows of {spec.num_frames}, each from the last {spec.context} of the "
            "one before"
        )
    place = Device(device)
    strength = (DEFAULT_GUIDANCE if guidance is None else guidance) if spec.classes else 1.0
    made = generate_clips(
        model.to(place.torch_device), spec, place,
        count=clips, num_frames=frames, sampling=ClipSampling(steps=steps, method=method, guidance=strength), seed=seed,
        label=label, given=given,
    )  # fmt: skip
    target = _make_folder(folder.path, out)
    settings = {
        "run": str(folder.path),
        "num_clips": clips,
        "num_frames": frames,
        "first_frames": None if first_frames is None else str(first_frames),
        "steps": steps,
        "method": method,
        "guidance": strength,
        "class": class_name,
        "seed": seed,
        "fps": fps or spec.fps,
    }
    _write_settings(target, settings)
    written = _write_clips(made.numpy(), target, fps or spec.fps, notices)
    return {**settings, **written, "notices": notices}


def open_video(path: str | Path) -> tuple[RunFolder, VideoSpec, nn.Module]:
    """Folder, description and trained model of a run of the video application.

    Raises:
        UsageError: it is the run of something else.
        CheckpointError: it has not ended.
    """
    folder = RunFolder.open(path)
    if kind_of(path) != "video":
        raise UsageError("This is for runs of the video application", got=str(path))
    check_ended(folder)
    spec = VideoSpec.from_json(folder.read_json("video.json"))
    model = make_network(spec)
    load_weights(model, folder.path / "model.safetensors")
    return folder, spec, model.eval()


# ---- generating


def _check_numbers(
    *, clips: int, steps: int, frames: int, fps: float | None, method: str, guidance: float | None, seed: int
) -> None:
    for name, value, most in (("--clips", clips, 10_000), ("--steps", steps, 1000), ("--frames", frames, 10_000)):
        if not 1 <= value <= most:
            raise UsageError(f"{name} lies between 1 and {most:,}", got=value)
    if fps is not None and not LEAST_FPS <= fps <= 240:
        raise UsageError("--fps lies between 0.1 and 240 frames a second", got=fps)
    if method not in METHODS:
        raise UsageError(f"--method is one of {', '.join(METHODS)}", got=repr(method))
    if guidance is not None and not 0 <= guidance <= 20:
        raise UsageError("--guidance lies between 0 and 20", got=guidance)
    if not 0 <= seed < 2**63:
        raise UsageError("--seed is a whole number from 0 to 2**63 - 1", got=seed)


def _label_of(class_name: str | None, guidance: float | None, spec: VideoSpec) -> int | None:
    if not spec.classes:
        asked = f"--class {class_name}" if class_name is not None else "--guidance" if guidance is not None else None
        if asked is not None:
            raise UsageError(
                "--class and --guidance are for runs whose clips lay in class folders",
                got=f"{asked} with a run without",
            )
        return None
    if class_name is None:
        return None
    if class_name not in spec.classes:
        raise UsageError(
            "--class is one of the run's classes", got=repr(class_name),
            remedy=f"The run knows {', '.join(spec.classes[:20])}",
        )  # fmt: skip
    return spec.classes.index(class_name)


def _first_frames(path: Path, spec: VideoSpec, num_frames: int, notices: list[str]) -> Tensor:
    """The frames of a file that are given, uint8 [K, C, S, S]: its first ``context``, or all where it has fewer."""
    if not path.is_file():
        raise UsageError("--first-frames names a file", got=f"{path}, which is not there")
    is_picture = path.suffix.lower() in PICTURE_SUFFIXES
    if not is_picture and not is_clip(path.name):
        raise UsageError("--first-frames names a clip or a picture (.mp4, .gif, .png, ...)", got=str(path))
    try:
        fps = None if is_picture else spec.fps  # a picture has no rate that could be said to change
        _, changes = choose_clip_format([path], spec.num_frames, size=spec.size, fps=fps, channels=spec.channels)
        frames = torch.from_numpy(decode_clip(path, spec.clip_format))[: 1 if is_picture else None]
    except (OSError, DataError) as error:
        raise DataError("The first frames can be read", got=f"{path}: {error}") from error
    most = min(spec.context, num_frames - 1)
    if most < 1:
        raise UsageError("Clips that go on from first frames have at least two", got=f"--frames {num_frames}")
    notices += changes
    if len(frames) > most:
        notices.append(f"the first {most} of {len(frames)} frames are given")
    if min(most, len(frames)) < spec.context:
        notices.append(f"{min(most, len(frames))} first frames; the model was tested with {spec.context}")
    return frames[:most]


def _check_out(out: str | Path | None) -> None:
    """Before clips are made that could not be written, or would lie among others."""
    if out is None:
        return
    target = Path(out)
    if target.exists() and not target.is_dir():
        raise UsageError("--out names a folder that can be made", got=f"{target}, which is a file")
    if target.is_dir() and any(target.iterdir()):
        raise UsageError(
            "--out names a new folder, or an empty one",
            got=f"{target}, which holds files",
            remedy="Leave it away for the next folder in the run's own",
        )


def _make_folder(run: Path, out: str | Path | None) -> Path:
    """``out``, or the first of generated-1, generated-2, ... that is not there yet."""
    try:
        if out is not None:
            Path(out).mkdir(parents=True, exist_ok=True)
            return Path(out)
        for number in itertools.count(1):
            with contextlib.suppress(FileExistsError):
                (run / f"generated-{number}").mkdir()
                return run / f"generated-{number}"
    except OSError as error:
        raise UsageError("--out names a folder that can be made", got=f"{out or run}: {error.strerror}") from error
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
    for names, most in (("clips.gif and clips.mp4 show", MOST_SIDE_BY_SIDE), ("grid.png shows", MOST_IN_GRID)):
        if len(made) > most:
            notices.append(f"{names} the first {most} of {len(made)} clips")
    return {"folder": str(target), "paths": paths, "files": [str(file) for file in files if file.is_file()]}


def _write_settings(target: Path, settings: dict[str, Any]) -> None:
    try:
        (target / "generated.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunError("A clip's settings can be written", got=f"{target}: {error}", remedy="Make room") from error
