"""The image application on the command line: what its commands call and print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volano.cli import output

# Options of `volano train` that this application takes.
OPTIONS = frozenset({"minutes", "epochs", "size", "model", "image_size", "image_cache", "batch_size", "flip", "seed"})


def train(path: Path | None, *, as_json: bool, **given: Any) -> int:
    """``volano train image``."""
    from volano.apps.image.train import train_image

    return _print_run(train_image(path, **given), as_json=as_json)


def resume(run: Path, *, as_json: bool, processes: Any = None) -> int:
    """``volano resume`` of an image run."""
    from volano.apps.image.train import resume_image

    return _print_run(resume_image(run, processes=processes), as_json=as_json)


def evaluate(run: Path, path: Path | None, *, device: str | None, as_json: bool) -> int:
    """``volano eval`` of an image run."""
    from volano.apps.image.use import eval_image

    result = eval_image(run, path, device=device)
    for notice in result["notices"]:
        output.warn(f"note: {notice}")
    if as_json:
        output.print_json(result)
        return 0
    output.print_per_class(result, "images")
    output.say(
        f"accuracy {result['accuracy']:.4f}   (always the commonest class: {result['baseline_accuracy']:.4f})",
        f"confusion matrix: {result['picture']}",
    )
    return 0


def predict(run: Path, files: list[Path], *, top_k: int, csv: Path | None, device: str | None, as_json: bool) -> int:
    """``volano predict`` with an image run."""
    from volano.apps.image.use import predict_image

    result = predict_image(run, files, top_k=top_k, csv_path=csv, device=device)
    return output.print_predictions(result, csv=csv, as_json=as_json)


def export(run: Path, *, to: str, out: Path | None, as_json: bool) -> int:
    """``volano export`` of an image run."""
    from volano.apps.image.use import export_image

    result = export_image(run, to, out)
    if as_json:
        output.print_json(result)
    else:
        output.say(
            f"{result['path']}  ({result['bytes']:,} bytes)",
            f"loaded back: the logits of {result['num_compared']} images differ "
            f"by at most {result['largest_difference']:.2g}",
        )
    return 0


def _print_run(result: Any, *, as_json: bool) -> int:
    run, metrics = result.run, result.metrics
    if as_json:
        output.print_json({**output.run_record(run), "metrics": metrics, "seconds": result.seconds})
    elif run.status == "finished":
        where = "the held-out test images" if result.is_held_out else "the test images"
        output.say(
            f"test accuracy {metrics['test_accuracy']:.4f} on {metrics['num_test']:,} of {where}   "
            f"(always the commonest class: {metrics['baseline_accuracy']:.4f})",
        )
        output.say_finished(run)
        output.say(
            f"next: volano eval {run.path}",
            f"      volano predict {run.path} FILES...",
            f"      volano export {run.path} --to pt2",
        )
    else:
        output.say_unfinished(run)
    return 0 if run.status == "finished" else 1
