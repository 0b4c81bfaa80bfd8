"""The text application on the command line: what its commands call and print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volano.cli import output

# Options of `volano train` that this application takes.
DIALS = frozenset({"minutes", "epochs", "depth", "context", "batch_size", "seed"})
# Options of `volano generate`.
GENERATE_DIALS = frozenset({"prompt", "tokens", "temperature", "top_k", "top_p", "seed"})


def train(path: Path | None, *, as_json: bool, **given: Any) -> int:
    """``volano train text``."""
    from volano.api.text import train_text

    return _print_run(train_text(path, **given), as_json=as_json)


def resume(run: Path, *, as_json: bool) -> int:
    """``volano resume`` of a text run."""
    from volano.api.text import resume_text

    return _print_run(resume_text(run), as_json=as_json)


def evaluate(run: Path, path: Path | None, *, device: str | None, as_json: bool) -> int:
    """``volano eval`` of a text run."""
    from volano.api.text_results import eval_text

    result = eval_text(run, path, device=device)
    for fault in result["unreadable"]:
        output.warn(f"not read, or in part: {fault['path']}: {fault['reason']}")
    if as_json:
        output.print_json(result)
    else:
        output.say(result["origin"], *_figures({**result, "num_test_bytes": result["num_bytes"]}, "bytes"))
    return 0


def generate(run: Path, *, device: str | None, as_json: bool, **given: Any) -> int:
    """``volano generate`` with a text run: pieces as they come, or one JSON object."""
    from volano.api.text_results import generate_text

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


def _print_run(result: Any, *, as_json: bool) -> int:
    run, metrics = result.run, result.metrics
    if as_json:
        output.print_json({**output.run_record(run), "metrics": metrics, "seconds": result.seconds})
    elif run.status == "finished":
        output.say(
            *_figures(metrics, "held-out bytes"),
            f"run: {run.path}",
            f"next: volano generate {run.path} --prompt TEXT",
            f"      volano eval {run.path} PATH",
        )
    else:
        output.say_unfinished(run)
    return 0 if run.status == "finished" else 1


def _figures(metrics: dict[str, Any], what: str) -> list[str]:
    xz, bz2 = metrics.get("bits_per_byte_xz"), metrics.get("bits_per_byte_bz2")
    compressors = f"   (after the training text: xz {xz:.3f}, bz2 {bz2:.3f})" if xz is not None else ""
    return [
        f"bits per byte {metrics['bits_per_byte']:.4f} on {metrics['num_test_bytes']:,} {what}{compressors}",
        f"perplexity {metrics['perplexity']:.1f} per token of {metrics['bytes_per_token']:.2f} bytes",
    ]
