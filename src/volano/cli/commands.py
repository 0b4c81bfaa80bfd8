"""The commands that look at the machine or at a run; `train`, `resume`, `explain`,
`explore` and `plans` have their own files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from volano.cli import options as opt
from volano.cli import output, plans
from volano.cli.bench import BENCH_HELP, bench
from volano.cli.explain import explain_app
from volano.cli.explore import explore_app
from volano.cli.generate import GENERATE_HELP, generate_function
from volano.cli.generated import PlainCommand
from volano.cli.run import RunWords, options_in
from volano.cli.train import announce, resume, train_app
from volano.errors import UsageError
from volano.record.format import bytes_text, notice_text
from volano.record.run_folder import RunFolder
from volano.script.remembered import Script
from volano.script.run import run_script
from volano.thread_waits import SPIN_COUNT

RUN_HELP = """Run a PyTorch script as python would, under the plan that was found for it.

volano run train.py --epochs 3
volano run --find 60 train.py             if no plan is known, look for one first
volano run --plan plan.json -m my_package.train
torchrun --nproc-per-node 2 -m volano run train.py

Options of Volano stand before the script; what follows is the script's, and so are its output and
exit code: Volano adds one line on standard error. If the script is known to take long, a plan is
looked for first, for at most a twentieth of that time.
"""


def register(app: typer.Typer) -> None:
    """Adds every command to the application, once."""
    if app.registered_commands:
        return
    app.add_typer(train_app(), name="train")
    app.command("resume", cls=PlainCommand)(resume)
    app.add_typer(explain_app(), name="explain")
    app.add_typer(explore_app(), name="explore")
    # What follows the script is the script's.
    of_script = {"allow_interspersed_args": False, "ignore_unknown_options": False}
    app.command("run", cls=PlainCommand, help=RUN_HELP, context_settings=of_script)(run_command)
    app.command("bench", cls=PlainCommand, help=BENCH_HELP)(bench)
    commands = {
        "eval": evaluate,
        "predict": predict,
        "export": export,
        "report": report,
        "doctor": doctor,
    }
    for name, command in commands.items():
        app.command(name, cls=PlainCommand)(command)
    app.command("generate", cls=PlainCommand, help=GENERATE_HELP)(generate_function())
    plans.register(app)


def run_command(
    script: Annotated[str, typer.Argument(metavar="SCRIPT.py", help="The script, or a module.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS", help="Its own arguments.")
    ] = None,
    is_module: Annotated[bool, typer.Option("-m", help="SCRIPT is the name of a module.")] = False,
    plan: Annotated[Path | None, typer.Option(help="Take the plan of this file.")] = None,
    no_plan: Annotated[bool, typer.Option("--no-plan", help="Run it as it is.")] = False,
    find: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="If no plan is known, look for one first, for so long."
        ),
    ] = None,
) -> int:
    """Runs a script; only mistakes and a call from Python come this way, see
    :func:`volano.cli.run.run_early`."""
    target = Script(target=script, is_module=is_module, arguments=tuple(arguments or ()))
    words = RunWords(target, None if plan is None else str(plan), no_plan, find)
    run_script(target, **options_in(words))
    return 0


def evaluate(
    run: opt.RunPath,
    path: Annotated[
        Path | None, typer.Argument(help="Other data; default: the run's own test set.")
    ] = None,
    device: opt.DeviceName = None,
    code: opt.Code = None,
    trust: opt.Trust = False,
    json: opt.Json = False,
    debug: opt.Debug = False,  # noqa: ARG001 - read by cli.main
) -> int:
    """The figures of a run's model on its own test set, or on other data."""
    model = _model_that_can("evaluate", run, device, code, trust)
    output.warn("evaluating ...")
    result = model.evaluate(path)
    for notice in result.get("notices", ()):
        output.warn(f"note: {notice}")
    for fault in result.get("unreadable", ()):
        output.warn(f"{model.unreadable_in_words}: {fault['path']}: {fault['reason']}")
    if json:
        output.print_json(result)
    else:
        output.show(model.describe_evaluation(result))
    return 0


def predict(
    run: opt.RunPath,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES", help="Files, or folders of them.")
    ],
    top_k: Annotated[
        int | None, typer.Option(help="Classes, or labels, to show for each file; default 3.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write a table here instead of printing one.")
    ] = None,
    device: opt.DeviceName = None,
    code: opt.Code = None,
    trust: opt.Trust = False,
    json: opt.Json = False,
    debug: opt.Debug = False,  # noqa: ARG001
) -> int:
    """The most likely classes of files, or their labels or numbers."""
    model = _model_that_can("predict", run, device, code, trust)
    output.warn("predicting ...")
    predictions = model.predict(files, **({} if top_k is None else {"top_k": top_k}))
    if csv is not None:
        predictions.write_csv(csv)
    for notice in predictions.notices:
        output.warn(f"note: {notice}")
    for fault in predictions.unreadable:
        output.warn(f"unreadable: {fault}")
    if json:
        output.print_json(predictions.to_json())
    elif csv is not None:
        output.say(f"{len(predictions)} predictions in {csv}")
    else:
        output.show([predictions.table()])
    return 0


def export(
    run: opt.RunPath,
    to: Annotated[
        str, typer.Option(help="safetensors, pt2, onnx, or hf: a folder with a model card.")
    ] = "safetensors",
    out: Annotated[
        Path | None,
        typer.Option(help="File (hf: folder) to write; default model.SUFFIX in the run's."),
    ] = None,
    code: opt.Code = None,
    trust: opt.Trust = False,
    json: opt.Json = False,
    debug: opt.Debug = False,  # noqa: ARG001
) -> int:
    """Write the model for other programs, load it back, and compare predictions."""
    model = _model_that_can("export", run, "cpu", code, trust)
    output.warn("exporting, loading back and comparing ...")
    result = model.export(to, out)
    if json:
        output.print_json(result)
    else:
        output.say(
            f"{result['path']}  ({result['bytes']:,} bytes)",
            f"loaded back: predictions on {result['num_compared']} examples differ by at most "
            f"{result['largest_difference']:.2g}",
        )
    return 0


def _model_that_can(verb: str, run: Path, device: str | None, code: str | None, trust: bool) -> Any:
    """Loads what a run has trained.

    Raises:
        UsageError: it is of an application that has no such verb.
    """
    RunFolder.open(run)  # a mistake is said before torch is loaded
    announce(str(run))
    from volano.api.train import load

    model = load(run, device=device, code=code, trust=trust)
    if not hasattr(model, verb):
        able = {
            "predict": "image, and text and video with --classify",
            "export": "image, text with --from, and video with --classify",
        }.get(verb, "your own")
        words = {"evaluate": "eval", "predict": "predict", "export": "export"}
        own = [word for name, word in words.items() if hasattr(model, name)]
        own += ["generate"] if model.generate_options is not None else []
        raise UsageError(
            f"A run to {verb} must be of an application that can: {able}",
            got=str(run),
            remedy=f"This run can: {', '.join(f'volano {word}' for word in own)}",
        )
    return model


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders of runs; several are compared.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; default RUN/report.html, or comparison.html here."),
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
    """The machine: what is slow and what to set, what it can do, what is missing."""
    announce("doctor")
    from volano.api.doctor import doctor as examine

    result = examine(device)
    if json:
        output.print_json(result)
        return 0
    machine, limits = result["machine"], result["limits"]
    facts = [
        ("device", f"{machine['device']} ({machine['device_name']})"),
        ("device memory", bytes_text(machine["device_memory"])),
        ("accelerators", machine["num_accelerators"]),
        ("precisions", ", ".join(machine["precisions"])),
        ("processor", machine["processor"]),
        ("cores, threads", f"{machine['num_cores']}, {machine['num_threads']}"),
        *([("waits", f"{SPIN_COUNT}={machine['spin_count']}")] if machine["spin_count"] else []),
        ("host memory", bytes_text(machine["host_memory"])),
        ("system", f"{machine['system']}, Python {machine['python']}"),
        ("matmul fp32", _rate(limits["matmul_fp32"], 1e9, "GFLOP/s")),
        *(
            [("matmul tf32", _rate(limits["matmul_tf32"], 1e9, "GFLOP/s"))]
            if limits["matmul_tf32"] is not None
            else []
        ),
        ("matmul bf16", _rate(limits["matmul_bf16"], 1e9, "GFLOP/s")),
        ("memory copy", _rate(limits["memory_copy"], 1e9, "GB/s read + written")),
        ("host to device", _rate(limits["host_to_device"], 1e9, "GB/s")),
        (
            "versions",
            ", ".join(
                f"{name} {version}" for name, version in result["versions"].items() if version
            ),
        ),
    ]
    facts += [("missing", f"{name} ({purpose})") for name, purpose in result["missing"].items()]
    output.say_wrapped(*map(notice_text, result["verdict"]))
    output.say("")
    output.say_facts(facts)
    return 0


def _rate(value: float | None, unit: float, name: str) -> str:
    return "none here" if value is None else f"{value / unit:,.0f} {name}"
