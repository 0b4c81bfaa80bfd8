"""The video application on the command line: what its commands call and print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volano.cli import output

# Options of `volano train` and of `volano generate` that this application takes.
OPTIONS = frozenset(
    {"minutes", "epochs", "network", "frames", "image_size", "fps", "batch_size", "flip", "seed"},
)
GENERATE_DIALS = frozenset(
    {"clips", "steps", "frames", "first_frames", "class_name", "guidance", "method", "fps", "seed", "out"},
)


def train(path: Path | None, *, as_json: bool, **given: Any) -> int:
    """``volano train video``."""
    from volano.apps.video.train import train_video

    return _print_run(train_video(path, **given), as_json=as_json)


def resume(run: Path, *, as_json: bool, processes: Any = None) -> int:
    """``volano resume`` of a video run."""
    from volano.apps.video.train import resume_video

    return _print_run(resume_video(run, processes=processes), as_json=as_json)


def evaluate(run: Path, path: Path | None, *, device: str | None, as_json: bool) -> int:
    """``volano eval`` of a video run."""
    from volano.apps.video.use import eval_video

    result = eval_video(run, path, device=device)
    for notice in result["notices"]:
        output.warn(f"note: {notice}")
    if as_json:
        output.print_json(result)
        return 0
    scored = {"model": result, **result["baselines"]}
    output.print_table(
        f"{result['num_clips']:,} clips of {result['origin']}: predicted frames, dB",
        ("frame", *(name.replace("_", " ") for name in scored), "SSIM of the model"),
        [
            (
                result["context"] + number + 1,
                *(f"{scores['psnr'][number]:.2f}" for scores in scored.values()),
                f"{result['ssim'][number]:.3f}",
            )
            for number in range(len(result["psnr"]))
        ],
        right=range(1 + len(scored) + 1),
    )
    output.say(*_distances(result), f"real above predicted: {result['picture']}")
    return 0


def generate(run: Path, *, device: str | None, as_json: bool, **given: Any) -> int:
    """``volano generate`` with a video run."""
    from volano.apps.video.use import generate_video

    result = generate_video(run, device=device, **given)
    for notice in result["notices"]:
        output.warn(f"note: {notice}")
    if as_json:
        output.print_json(result)
    else:
        output.say(
            f"{result['num_clips']} clips of {result['num_frames']} frames in {result['folder']}",
            *(f"{kind}: {path}" for kind, path in result["paths"].items()),
        )
    return 0


def _print_run(result: Any, *, as_json: bool) -> int:
    run, metrics = result.run, result.metrics
    if as_json:
        output.print_json({**output.run_record(run), "metrics": metrics, "seconds": result.seconds})
    elif run.status == "finished":
        trivial = ", ".join(f"{name.replace('_', ' ')} {psnr:.2f}" for name, psnr in metrics["psnr_baselines"].items())
        where = f"{metrics['num_test']:,} {'held-out' if result.is_held_out else 'test'} clips"
        output.say(
            f"first predicted frame {metrics['psnr_first_frame']:.2f} dB   ({trivial}; {where})",
            *_distances(metrics | {"self_test": result.self_test}),
        )
        output.say_finished(run)
        output.say(f"next: volano eval {run.path}", f"      volano generate {run.path} --clips 16")
    else:
        output.say_unfinished(run)
    return 0 if run.status == "finished" else 1


def _distances(figures: dict[str, Any]) -> list[str]:
    """The ratio of distances in words, and what the test of that ruler says."""
    if figures["self_test_passed"] is None:
        return []
    if figures["frechet_ratio"] is None:
        lines = ["no distances of generated clips: the self-test FAILED; what was measured: 'rejected' in eval-*.json"]
    else:
        lines = [
            f"generated clips are {figures['frechet_ratio']:.1f} times as far from test clips as training clips are",
            f"  (Frechet; by the kernel distance {figures['kernel_ratio']:.1f}; self-test passed)",
        ]
    ruler = figures.get("self_test")
    if ruler is not None:
        spoiled = ", ".join(f"{kind} {ratio:.1f}" for kind, ratio in ruler["frechet"].items() if kind != "real")
        lines.append(
            f"  spoiled real clips: {spoiled}; untouched ones at most {ruler['frechet']['real']:.1f} (Frechet)"
        )
        lines += [f"  {ruler['reason']}"] if ruler["reason"] else []
    return lines
