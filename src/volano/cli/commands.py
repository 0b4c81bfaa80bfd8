"""The commands that look at the machine or at a run; `train`, `resume`, `explain`,
`explore` and `plans` have their own files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volano.cli import options as opt
from volano.cli import output, plans
from volano.cli.applications import act
from volano.cli.explain import explain
from volano.cli.explore import explore
from volano.cli.generate import generate
from volano.cli.train import resume, train


def register(app: typer.Typer) -> None:
    """Adds every command to the application, once."""
    if app.registered_commands:
        return
    for command, name in (
        (train, "train"),
        (resume, "resume"),
        (explain, "explain"),
        (explore, "explore"),
        (evaluate, "eval"),
        (predict, "predict"),
        (generate, "generate"),
        (export, "export"),
        (report, "report"),
        (doctor, "doctor"),
    ):
        app.command(name)(command)
    plans.register(app)


def evaluate(
    run: opt.RunPath,
    path: Annotated[Path | None, typer.Argument(help="Other data; none: the run's own test set.")] = None,
    device: opt.DeviceName = None,
    json: opt.Json = False,
    debug: opt.Debug = False,  # noqa: ARG001 - read by cli.main
) -> int:
    """The figures of a run's model; for images per-class figures and the confusion matrix, for clips
    predicted frames beside trivial ones."""
    return act(run, "eval", "evaluate", path, device=device, as_json=json)


def predict(
    run: opt.RunPath,
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Files, or folders of them.")],
    top_k: Annotated[int, typer.Option(help="Classes per file.")] = 3,
    csv: Annotated[Path | None, typer.Option(help="Write a table here instead of printing one.")] = None,
    device: opt.DeviceName = None,
    json: opt.Json = False,
    debug: opt.Debug = False,  # noqa: ARG001
) -> int:
    """The most likely classes of files."""
    return act(run, "predict", "predict", files, top_k=top_k, csv=csv, device=device, as_json=json)


def export(
    run: opt.RunPath,
    to: Annotated[str, typer.Option(help="safetensors, pt2 or onnx.")] = "safetensors",
    out: Annotated[Path | None, typer.Option(help="File to write; default model.SUFFIX in the run's folder.")] = None,
    json: opt.Json = False,
    debug: opt.Debug = False,  # noqa: ARG001
) -> int:
    """Write the model for other programs, load it back, and compare predictions."""
    return act(run, "export", "export", to=to, out=out, as_json=json)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs; several are compared.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; default RUN/report.html, or comparison.html here.")
    ] = None,
    json: opt.Json = False,
    debug: opt.Debug = False,  # noqa: ARG001
) -> int:
    """Write a page about a run, or about several side by side."""
    from volano.running.end_run import write_report

    path = write_report(*runs, out=out)
    if json:
        output.print_json({"report": str(path), "runs": [str(run) for run in runs]})
    else:
        output.say(f"report: {path}")
    return 0


def doctor(device: opt.DeviceName = None, json: opt.Json = False, debug: opt.Debug = False) -> int:  # noqa: ARG001
    """The machine, what it can do at most, the versions, and what is missing."""
    from volano import api

    result = api.doctor(device)
    if json:
        output.print_json(result)
        return 0
    machine, limits = result["machine"], result["limits"]
    facts = [
        ("device", f"{machine['device']} ({machine['device_name']})"),
        ("device memory", _gib(machine["device_memory"])),
        ("accelerators", machine["num_accelerators"]),
        ("precisions", ", ".join(machine["precisions"])),
        ("processor", machine["processor"]),
        ("cores, threads", f"{machine['num_cores']}, {machine['num_threads']}"),
        ("host memory", _gib(machine["host_memory"])),
        ("system", f"{machine['system']}, Python {machine['python']}"),
        ("matmul fp32", _rate(limits["matmul_fp32"], 1e9, "GFLOP/s")),
        ("matmul bf16", _rate(limits["matmul_bf16"], 1e9, "GFLOP/s")),
        ("memory copy", _rate(limits["memory_copy"], 1e9, "GB/s read + written")),
        ("host to device", _rate(limits["host_to_device"], 1e9, "GB/s")),
        (
            "versions",
            ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version),
        ),
    ]
    output.print_table("", ("machine", ""), facts)
    for package, purpose in result["missing"].items():
        output.say(f"missing: {package} ({purpose})")
    return 0


def _gib(num_bytes: int | None) -> str:
    return "not known" if num_bytes is None else f"{num_bytes / 2**30:.1f} GiB"


def _rate(value: float | None, unit: float, name: str) -> str:
    return "not there" if value is None else f"{value / unit:,.0f} {name}"
