"""The commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from volano.cli import options as opt
from volano.cli import output
from volano.errors import UsageError

_IMAGE = "Image application"


def register(app: typer.Typer) -> None:
    """Adds every command to the application, once."""
    if app.registered_commands:
        return
    for command, name in (
        (train, "train"),
        (resume, "resume"),
        (evaluate, "eval"),
        (predict, "predict"),
        (export, "export"),
        (doctor, "doctor"),
    ):
        app.command(name)(command)


def train(
    what: Annotated[str, typer.Argument(metavar="image|MODULE:TASK", help="An application, or a task of your own.")],
    path: Annotated[
        Path | None,
        typer.Argument(help="image: class folders, IDX files or a .csv/.parquet; none: embedded digits."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/NAME-DATE-TIME.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Time for the whole command.", rich_help_panel=_IMAGE)] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data.", rich_help_panel=_IMAGE)] = None,
    size: Annotated[str | None, typer.Option(help="thin, base or wide.", rich_help_panel=_IMAGE)] = None,
    model: Annotated[
        str | None, typer.Option(help="MODULE:FUNCTION that makes your own model.", rich_help_panel=_IMAGE)
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels to decode files to.", rich_help_panel=_IMAGE)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per step.", rich_help_panel=_IMAGE)] = None,
    flip: Annotated[str, typer.Option(help="auto, yes or no: mirror images.", rich_help_panel=_IMAGE)] = "auto",
    seed: Annotated[
        int | None, typer.Option(help="Of weights, order and augmentation.", rich_help_panel=_IMAGE)
    ] = None,
    device: opt.DeviceName = None,
    precision: opt.Precision = None,
    memory_format: opt.MemoryFormat = None,
    compile: opt.Compile = None,
    micro_batch: opt.MicroBatch = None,
    threads: opt.Threads = None,
    feed: opt.FeedName = None,
    workers: opt.Workers = None,
    json: opt.Json = False,
    debug: opt.Debug = False,  # noqa: ARG001 - read by cli.main
) -> int:
    """Train an application, or a task of your own.

    volano train image                    the embedded sample

    volano train image ./photos --minutes 10

    volano train my_task:task
    """
    knobs = opt.pins(
        precision=precision,
        memory_format=memory_format,
        compile=compile,
        micro_batch=micro_batch,
        threads=threads,
        feed=feed,
        workers=workers,
    )
    dials: dict[str, Any] = {
        "minutes": minutes, "epochs": epochs, "size": size, "model": model,
        "image_size": image_size, "batch_size": batch_size, "seed": seed,
    }  # fmt: skip
    if what == "image":
        from volano.api import image

        given = {name: value for name, value in dials.items() if value is not None}
        result = image.train_image(path, **given, flip=flip, device=device, out=out, pins=knobs)
        return _print_image_run(result, as_json=json)
    if ":" not in what:
        raise UsageError(
            "What to train is an application or a task of your own",
            got=repr(what),
            remedy="Write image, or module:task",
        )
    _refuse_dials({"PATH": path, **{f"--{name.replace('_', '-')}": value for name, value in dials.items()}})
    from volano import api

    run = api.train(what, device=device, out=out, pins=knobs)
    return _print_run(run, as_json=json)


def resume(run: opt.RunPath, json: opt.Json = False, debug: opt.Debug = False) -> int:  # noqa: ARG001
    """Go on with a run that was stopped, from its last checkpoint."""
    from volano.api import image
    from volano.api.tasks import resume as resume_task

    if image.is_image_run(run):
        return _print_image_run(image.resume_image(run), as_json=json)
    return _print_run(resume_task(run), as_json=json)


def evaluate(
    run: opt.RunPath,
    path: Annotated[Path | None, typer.Argument(help="Other images; none: the run's own test set.")] = None,
    device: opt.DeviceName = None,
    json: opt.Json = False,
    debug: opt.Debug = False,  # noqa: ARG001
) -> int:
    """Accuracy, per-class precision and recall, and the confusion matrix as a picture."""
    from volano.api import image_results

    result = image_results.eval_image(run, path, device=device)
    if json:
        output.print_json(result)
        return 0
    rows = [
        (name, row["support"], f"{row['precision']:.4f}", f"{row['recall']:.4f}", f"{row['f1']:.4f}")
        for name, row in result["per_class"].items()
    ]
    output.print_table(
        f"{result['num_examples']:,} images of {result['origin']}",
        ("class", "images", "precision", "recall", "F1"),
        rows,
        right=(1, 2, 3, 4),
    )
    output.say(
        f"accuracy {result['accuracy']:.4f}   (always the commonest class: {result['baseline_accuracy']:.4f})",
        f"confusion matrix: {result['picture']}",
    )
    return 0


def predict(
    run: opt.RunPath,
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Image files, or folders of them.")],
    top_k: Annotated[int, typer.Option(help="Classes per image.")] = 3,
    csv: Annotated[Path | None, typer.Option(help="Write a table here instead of printing one.")] = None,
    device: opt.DeviceName = None,
    json: opt.Json = False,
    debug: opt.Debug = False,  # noqa: ARG001
) -> int:
    """The most likely classes of images."""
    from volano.api import image_results

    result = image_results.predict_image(run, files, top_k=top_k, csv_path=csv, device=device)
    for fault in result["unreadable"]:
        output.warn(f"unreadable: {fault['path']}: {fault['reason']}")
    if json:
        output.print_json(result)
    elif csv is not None:
        output.say(f"{len(result['predictions'])} predictions in {csv}")
    else:
        columns = ["file", *(name for place in range(result["top_k"]) for name in (f"top {place + 1}", "p"))]
        rows = [
            [
                row["path"],
                *(cell for one in row["top"] for cell in (one["class"], f"{one['probability']:.3f}")),
            ]
            for row in result["predictions"]
        ]
        output.print_table("", columns, rows, right=range(2, len(columns), 2))
    return 0


def export(
    run: opt.RunPath,
    to: Annotated[str, typer.Option(help="safetensors, pt2 or onnx.")] = "safetensors",
    out: Annotated[Path | None, typer.Option(help="File to write; default model.SUFFIX in the run's folder.")] = None,
    json: opt.Json = False,
    debug: opt.Debug = False,  # noqa: ARG001
) -> int:
    """Write the model for other programs, load it back, and compare predictions."""
    from volano.api import image_results

    result = image_results.export_image(run, to, out)
    if json:
        output.print_json(result)
    else:
        output.say(
            f"{result['path']}  ({result['bytes']:,} bytes)",
            f"loaded back: the logits of {result['num_compared']} images differ "
            f"by at most {result['largest_difference']:.2g}",
        )
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


def _print_run(run: Any, *, as_json: bool) -> int:
    record = _run_record(run)
    if as_json:
        output.print_json(record)
    else:
        output.say("  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in run.metrics.items()))
        output.say(f"run: {run.path}")
        if run.status == "stopped":
            output.say(f"go on: volano resume {run.path}")
    return 0 if run.status == "finished" else 1


def _print_image_run(result: Any, *, as_json: bool) -> int:
    run, metrics = result.run, result.metrics
    if as_json:
        output.print_json({**_run_record(run), "metrics": metrics, "seconds": result.seconds})
    elif run.status == "finished":
        where = "the held-out test images" if result.is_held_out else "the test images"
        output.say(
            f"test accuracy {metrics['test_accuracy']:.4f} on {metrics['num_test']:,} of {where}   "
            f"(always the commonest class: {metrics['baseline_accuracy']:.4f})",
            f"run: {run.path}",
            f"next: volano eval {run.path}",
            f"      volano predict {run.path} FILES...",
            f"      volano export {run.path} --to pt2",
        )
    else:
        output.say(f"run: {run.path}", f"go on: volano resume {run.path}")
    return 0 if run.status == "finished" else 1


def _run_record(run: Any) -> dict[str, Any]:
    from volano.training import RunFolder

    return {
        "run": str(run.path),
        "status": run.status,
        "task": RunFolder.open(run.path).read_json("task.json"),
        "plan": run.plan.to_json(),
        "metrics": run.metrics,
        "seconds": run.seconds,
        "notices": list(run.notices),
    }


def _refuse_dials(given: dict[str, Any]) -> None:
    for name, value in given.items():
        if value is not None:
            raise UsageError(
                f"{name} is a dial of the image application", got=f"{name} {value} with a task of your own",
                remedy="Say it in the task",
            )  # fmt: skip


def _gib(num_bytes: int | None) -> str:
    return "not known" if num_bytes is None else f"{num_bytes / 2**30:.1f} GiB"


def _rate(value: float | None, unit: float, name: str) -> str:
    return "not there" if value is None else f"{value / unit:,.0f} {name}"
