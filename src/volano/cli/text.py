"""The text application on the command line: what its commands call and print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volano.cli import output
from volano.errors import UsageError

# Options of `volano train` that this application takes.
OPTIONS = frozenset({"minutes", "epochs", "depth", "context", "batch_size", "classify", "seed"})
# Options of `volano generate`.
GENERATE_DIALS = frozenset({"prompt", "tokens", "temperature", "top_k", "top_p", "seed"})


def train(path: Path | None, *, as_json: bool, **given: Any) -> int:
    """``volano train text``."""
    if not given.pop("classify", False):
        from volano.apps.text.train import train_text

        return _print_run(train_text(path, **given), as_json=as_json)
    from volano.apps.text.classify.train import train_text_classes

    for name in ("epochs", "depth", "context", "batch_size"):
        if name in given:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} is a dial of language models",
                got=f"{option} {given[name]} with --classify",
                remedy="Leave it out",
            )
    return _print_run(train_text_classes(path, **given), as_json=as_json)


def resume(run: Path, *, as_json: bool, processes: Any = None) -> int:
    """``volano resume`` of a text run."""
    if _tells_classes(run):
        from volano.apps.text.classify.train import resume_text_classes

        return _print_run(resume_text_classes(run, processes=processes), as_json=as_json)
    from volano.apps.text.train import resume_text

    return _print_run(resume_text(run, processes=processes), as_json=as_json)


def evaluate(run: Path, path: Path | None, *, device: str | None, as_json: bool) -> int:
    """``volano eval`` of a text run."""
    if _tells_classes(run):
        return _evaluate_classes(run, path, device=device, as_json=as_json)
    from volano.apps.text.use import eval_text

    result = eval_text(run, path, device=device)
    for notice in result["notices"]:
        output.warn(f"note: {notice}")
    for fault in result["unreadable"]:
        output.warn(f"not read, or in part: {fault['path']}: {fault['reason']}")
    if as_json:
        output.print_json(result)
    else:
        output.say(result["origin"], *_figures({**result, "num_test_bytes": result["num_bytes"]}, "bytes"))
    return 0


def generate(run: Path, *, device: str | None, as_json: bool, **given: Any) -> int:
    """``volano generate`` with a text run: pieces as they come, or one JSON object."""
    from volano.apps.text.use import generate_text

    generation = generate_text(run, device=device, **given)
    for notice in generation.notices:
        output.warn(f"note: {notice}")
    if as_json:
        for _ in generation:
            pass
        output.print_json(generation.figures())
        return 0
    output.write(generation.prompt)
    for piece in generation:
        output.write(piece)
    output.say("")
    figures = generation.figures()
    ended = "; the model ended the document" if figures["is_ended"] else ""
    output.warn(f"{figures['num_tokens']} tokens, {figures['tokens_per_second']:,.0f} a second{ended}")
    return 0


def predict(run: Path, files: list[Path], *, top_k: int, csv: Path | None, device: str | None, as_json: bool) -> int:
    """``volano predict`` with a run that tells classes of texts apart."""
    if not _tells_classes(run):
        raise UsageError("predict is for runs that tell classes apart", got=str(run), remedy="volano generate")
    from volano.apps.text.classify.train import predict_text_classes

    return output.print_predictions(
        predict_text_classes(run, files, top_k=top_k, csv_path=csv, device=device), csv=csv, as_json=as_json
    )


def _evaluate_classes(run: Path, path: Path | None, *, device: str | None, as_json: bool) -> int:
    from volano.apps.text.classify.train import eval_text_classes

    result = eval_text_classes(run, path, device=device)
    for notice in result["notices"]:
        output.warn(f"note: {notice}")
    for fault in result["unreadable"]:
        output.warn(f"left out: {fault['path']}: {fault['reason']}")
    if as_json:
        output.print_json(result)
        return 0
    output.print_per_class(result, "texts")
    output.say(f"accuracy {result['accuracy']:.4f}   (always the commonest class: {result['baseline_accuracy']:.4f})")
    return 0


def _tells_classes(run: Path) -> bool:
    from volano.training import RunFolder

    return RunFolder.open(run).read_json("text.json").get("goal") == "classes"


def _print_run(result: Any, *, as_json: bool) -> int:
    run, metrics = result.run, result.metrics
    if as_json:
        output.print_json({**output.run_record(run), "metrics": metrics, "seconds": result.seconds})
    elif run.status == "finished" and "test_accuracy" in metrics:
        figures = ", ".join(f"{name} {accuracy:.4f}" for name, accuracy in metrics["candidates"].items())
        output.say(
            f"test accuracy {metrics['test_accuracy']:.4f} on {metrics['num_test']:,} texts   "
            f"(always the commonest class: {metrics['baseline_accuracy']:.4f})",
            f"kept: {metrics['kept']}   (to choose: {figures})",
        )
        output.say_finished(run)
        output.say(f"next: volano eval {run.path}", f"      volano predict {run.path} FILES...")
    elif run.status == "finished":
        output.say(*_figures(metrics, "held-out bytes"))
        output.say_finished(run)
        output.say(f"next: volano generate {run.path} --prompt TEXT", f"      volano eval {run.path} PATH")
    else:
        output.say_unfinished(run)
    return 0 if run.status == "finished" else 1


def _figures(metrics: dict[str, Any], what: str) -> list[str]:
    lines = [f"bits per byte {metrics['bits_per_byte']:.4f} on {metrics['num_test_bytes']:,} {what}"]
    xz, bz2 = metrics.get("bits_per_byte_xz"), metrics.get("bits_per_byte_bz2")
    if xz is not None:
        lines.append(f"after the training text, xz needs {xz:.4f} and bz2 {bz2:.4f}")
    return [*lines, f"perplexity {metrics['perplexity']:.1f} per token of {metrics['bytes_per_token']:.2f} bytes"]
