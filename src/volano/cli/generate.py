"""``volano generate``: what a run's model makes up."""

from __future__ import annotations

from typing import Annotated

import typer

from volano.cli import options as opt
from volano.cli.applications import APPLICATIONS, act, application_of
from volano.errors import UsageError

_TEXT = "Text application"


def generate(
    run: opt.RunPath,
    seed: Annotated[int | None, typer.Option(help="Of the draws; the same seed gives the same result.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What to go on from.", rich_help_panel=_TEXT)] = None,
    tokens: Annotated[int | None, typer.Option(help="How many to write, at most.", rich_help_panel=_TEXT)] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 takes the likeliest; default 0.8.", rich_help_panel=_TEXT)
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw among so many.", rich_help_panel=_TEXT)] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw among the likeliest of this probability.", rich_help_panel=_TEXT)
    ] = None,
    device: opt.DeviceName = None,
    json: opt.Json = False,
    debug: opt.Debug = False,  # noqa: ARG001 - read by cli.main
) -> int:
    """Let a run's model write; text appears as it is written.

    volano generate runs/text-1 --prompt "Once upon" --tokens 200
    """
    given = opt.given(
        seed=seed, prompt=prompt, tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p
    )  # fmt: skip
    application = application_of(run)
    for name in sorted(given.keys() - getattr(application, "GENERATE_DIALS", given.keys())):
        owners = [owner for owner, module in APPLICATIONS.items() if name in getattr(module, "GENERATE_DIALS", ())]
        raise UsageError(
            f"--{name.replace('_', '-')} is a dial of the {' and '.join(owners)} application",
            got=f"{given[name]} with {run}",
            remedy="Leave it out",
        )
    return act(run, "generate", "generate", device=device, as_json=json, **given)
