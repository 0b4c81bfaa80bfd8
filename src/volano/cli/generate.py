"""The command ``volano generate``: what a run's model makes up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from volano.apps.options import DeclaredOptions, check_names
from volano.apps.text.options import TextGenerationOptions
from volano.apps.video.options import VideoGenerationOptions
from volano.cli import options as opt
from volano.cli import output
from volano.cli.generated import flag_parameters, function_of, given, parameters_from
from volano.cli.train import announce
from volano.errors import UsageError
from volano.record.run_folder import RunFolder

GENERATE_HELP = """Make something new with a run's model: text, or clips as mp4, gif and a grid.

volano generate runs/text-1 --prompt "Once upon" --tokens 200
volano generate runs/video-1 --clips 16
"""
_OPTIONS: dict[str, type[DeclaredOptions]] = {
    "Text application": TextGenerationOptions,
    "Video application": VideoGenerationOptions,
}


def _what(
    run: opt.RunPath, device: opt.DeviceName = None, code: opt.Code = None, trust: opt.Trust = False
) -> None:
    """Declares the arguments of whose model makes it up, and where."""


def generate_function() -> Callable[..., int]:
    """Returns the function of ``volano generate``; an option that several applications have is
    shown with the first."""
    parameters = parameters_from(_what)
    for panel, options in _OPTIONS.items():
        known = {parameter.name for parameter in parameters}
        parameters += flag_parameters(options, panel=panel, leave_out=known)
    return function_of(_generate, [*parameters, *parameters_from(opt.shared_options)])


def _generate(
    run: Path,
    *,
    device: str | None,
    code: str | None,
    trust: bool,
    json: bool,
    debug: bool,
    **values: Any,
) -> int:
    del debug  # read by cli.main
    from volano.running.trust import name_code

    name_code(code)
    model = _load(run, device, trust, given(values))
    generated = model.generate(**given(values))
    notices = generated["notices"] if isinstance(generated, dict) else generated.notices
    for notice in notices:
        output.warn(f"note: {notice}")
    if isinstance(generated, dict):
        if json:
            output.print_json(generated)
        else:
            output.say(*model.describe_generated(generated))
        return 0
    if json:
        for _ in generated:
            pass
        output.print_json(generated.figures())
        return 0
    output.write(generated.prompt)
    for piece in generated:
        output.write(piece)
    output.say("")
    figures = generated.figures()
    ended = "; the model ended the document" if figures["is_ended"] else ""
    output.warn(
        f"{figures['num_tokens']} tokens, {figures['tokens_per_second']:,.0f} a second{ended}"
    )
    return 0


def _load(run: Path, device: str | None, trust: bool, asked: dict[str, Any]) -> Any:
    """Loads the model; options that its application does not have are refused before."""
    folder = RunFolder.open(run)  # a mistake is said before torch is loaded
    announce(str(run))
    from volano.apps.kinds import application_of_run, load

    application = application_of_run(folder, trust=trust)
    model = load(folder, device or getattr(application, "generate_device", None), trust=trust)
    if model.generate_options is None:
        raise UsageError(
            "A run to generate from must be of an application that can: text, video", got=str(run)
        )
    check_names(asked, model.generate_options.given_names(), f"what {run} can generate")
    return model
