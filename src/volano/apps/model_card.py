"""The model card of an exported network: what it was trained on, its figures beside trivial ones,
how it was trained, what it is not known to do."""

from __future__ import annotations

from pathlib import Path

from volano.record.format import brief_value
from volano.record.json_values import mapping
from volano.report.verdict import Verdict
from volano.training import RunFolder

# What a network gives that is no logit of one of several classes, by the target of its run.
_GIVES = {
    "labels": "Each output is the logit of a label; its sigmoid is the probability, and labels of "
    "more than 0.5 are named.",
    "numbers": "Each output is a number in the unit of the table that it was trained on.",
}

# ``{}``: the file of the program.
_USE = """\
    model = torch.export.load("{}").module()
    outputs = model(examples)  # bytes uint8, in batches of the shape `input` of config.json

Outputs are in the order of `classes` there."""


def write_card(folder: RunFolder, target: Path, name: str, *, program: str | None = None) -> None:
    """Writes ``README.md`` about a run into a folder.

    Args:
        folder: the run's folder.
        target: the folder to write into.
        name: the title.
        program: the file of a program in ``target``; None of a network of transformers.
    """
    record = folder.read_json("run.json")
    source, verdict = mapping(record.get("source")), Verdict.of_json(record.get("verdict"))
    figures = mapping(record.get("metrics"))
    rows = [
        f"| {name.replace('_', ' ')} | {brief_value(value)} |"
        for name, value in figures.items()
        if isinstance(value, int | float | str)
    ]
    dials = mapping(source.get("dials"))
    said = [] if verdict is None else map(str.strip, verdict.lines())
    how = "" if dials.get("tune") is None else f" (`tune={dials['tune']}`)"
    lines = [
        "---", f"library_name: {'transformers' if program is None else 'pytorch'}", "---", "",
        f"# {name}", "",
        "Trained from nothing with Volano." if dials.get("from_") is None
        else f"Fine-tuned from `{dials['from_']}` with Volano{how}.", "",
        *([] if program is None else [_USE.format(program), ""]),
        *([f"{_GIVES[str(dials.get('target'))]}", ""] if dials.get("target") in _GIVES else []),
        "## Data", f"{source.get('origin')}; the figures below are of examples that were held out.",
        "", "## Figures", "| figure | value |", "|---|---|", *rows, "",
        *([] if verdict is None else [f"The run {'; '.join(said)}.", ""]),
        "## How it was trained", f"{record.get('num_steps')} steps. What was said of it:", "",
        *(f"- {text}" for text in record.get("notices") or ()), "",
        "## Limits",
        "It was tested on examples of the same source alone: nothing is known of others. What the "
        "pretrained network has learned of its own data, wanted or not, is in it.", "",
    ]  # fmt: skip
    (target / "README.md").write_text("\n".join(lines), encoding="utf-8")
