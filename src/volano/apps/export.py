"""A trained network for other programs. Every file is loaded back and compared before it is called
written."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from volano.apps.model_card import write_card
from volano.apps.targets.classes import OneClass
from volano.apps.targets.target import Target
from volano.errors import CheckpointError, RunError, UsageError, needs_package
from volano.record.files import check_out, write_bytes, written_folder
from volano.training import RunFolder, load_tensors, load_weights, save_weights

SAMPLES = "samples.safetensors"  # of a run
_CLASSES = OneClass(names=())
FORMATS = ("safetensors", "pt2", "onnx")
HF = "hf"  # a folder of transformers, or of a program, with a model card
_PROGRAM = "model.pt2"
# The same operations in another program: fp32 rounding over some twenty layers stays far below
# this.
_TOLERANCE = 1e-3


def export_place(run: Path, to: str, out: str | Path | None) -> Path:
    """Returns the file, or the folder of transformers, that an export of a run writes.

    Raises:
        UsageError: it cannot be one.
    """
    suffix = {"safetensors": "exported.safetensors"}.get(to, to)
    target = Path(out) if out is not None else run / f"model.{suffix}"
    if to != HF and (not target.parent.is_dir() or target.is_dir()):
        raise UsageError("`out` must name a file in a folder that exists", got=str(target))
    if out is not None:
        check_out(target)
    return target


def samples_of(file: Path, name: str) -> Tensor:
    """Returns the examples that a run keeps to compare predictions on.

    Raises:
        CheckpointError: it holds none.
    """
    try:
        return load_tensors(file)[name]
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(
            f"A run must hold {file.name} to compare predictions on", got=f"{error}"
        ) from error


def export_classifier(
    model: nn.Module,
    fresh: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    to: str,
    out: Path,
    *,
    target: Target = _CLASSES,
    names: Sequence[str] = ("images",),
    most_length: int | None = None,
) -> dict[str, Any]:
    """Writes ``model`` to ``out``.

    Args:
        model: trained, on the host.
        fresh: another of the same structure, for loading weights back.
        inputs: examples to compare predictions on, at least 2: what the network takes.
        to: one of ``FORMATS``.
        out: the file.
        target: what the network gives; programs give it in the units of the data.
        names: names of the inputs in ONNX.
        most_length: the largest second dimension of the inputs, if programs take others than
            that of ``inputs``.

    Returns:
        ``path``, ``bytes``, ``num_compared`` and ``largest_difference`` of the logits.

    Raises:
        UsageError: another format.
        MissingExtraError: ONNX without its packages.
        RunError: what was loaded back predicts something else.
    """
    if to not in FORMATS:
        raise UsageError(f"A model must be exported to one of {', '.join(FORMATS)}", got=repr(to))
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    model.eval()
    whole = model if to == "safetensors" else target.finished(model)
    example = _example(inputs, most_length)
    with torch.no_grad():
        expected = whole(*inputs).float()
        if to == "onnx":
            got = _onnx(whole, (names, target.output), inputs, example, out)
        elif to == "pt2":
            got = _pt2(whole, inputs, example, out)
        else:
            got = _safetensors(model, fresh.eval(), inputs, out)
    difference = largest_difference(got, expected, target)
    return {
        "path": str(out),
        "format": to,
        "bytes": out.stat().st_size,
        "num_compared": len(expected),
        "largest_difference": difference,
    }


def export_folder(
    write: Callable[[str, Path], dict[str, Any]],
    run: RunFolder,
    target: Path,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes a network that is none of transformers as a folder to be shared: a program that torch
    alone loads, ``config.json`` and a model card.

    Args:
        write: writes the network in a format to a file: :func:`export_classifier` of all else.
        run: the run's folder.
        target: the folder to write.
        about: ``classes`` and ``input``, the shape of an example.
    """
    with written_folder(target) as partial:
        found = write("pt2", partial / _PROGRAM)
        config = {name: about[name] for name in ("classes", "input")}
        (partial / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        write_card(run, partial, target.name, program=_PROGRAM)
    return {**found, "path": str(target), "format": HF}


def largest_difference(got: Tensor, expected: Tensor, target: Target) -> float:
    """Returns by how much outputs of what was loaded back differ at most.

    Raises:
        RunError: it is more than rounding.
    """
    differences = (got - expected).abs()
    difference = differences.max().item()
    if not (differences <= _TOLERANCE * target.spread(expected)).all():
        raise RunError(
            "An exported model must predict what the run's model does",
            got=f"logits that differ by {difference}",
        )
    return difference


def _safetensors(
    model: nn.Module, fresh: nn.Module, inputs: tuple[Tensor, ...], out: Path
) -> Tensor:
    save_weights(model, out)
    load_weights(fresh, out)
    return fresh(*inputs).float()


def _example(inputs: tuple[Tensor, ...], most_length: int | None) -> dict[str, Any]:
    """Returns two examples with which a program is traced, and which of their sizes may differ."""
    sizes: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    if most_length is not None:
        sizes[1] = torch.export.Dim("length", min=2, max=most_length)
    some = tuple(tensor[:2] for tensor in inputs)
    return {"args": some, "dynamic_shapes": (sizes,) * len(inputs)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporters' own remarks from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _pt2(
    model: nn.Module, inputs: tuple[Tensor, ...], example: dict[str, Any], out: Path
) -> Tensor:
    with _quiet():
        program = torch.export.export(model, **example)
    content = io.BytesIO()  # given a name that is no UTF-8, the library ends the process
    torch.export.save(program, content)
    write_bytes(out, content.getvalue())
    return torch.export.load(io.BytesIO(out.read_bytes())).module()(*inputs).float()


def _onnx(
    model: nn.Module,
    names: tuple[Sequence[str], str],
    inputs: tuple[Tensor, ...],
    example: dict[str, Any],
    out: Path,
) -> Tensor:
    with needs_package("Export to ONNX needs onnx and onnxscript", "'volano[onnx]'"):
        import onnx.reference
        import onnxscript  # noqa: F401 - torch's exporter needs it
    with _quiet():
        program: Any = torch.onnx.export(
            model, **example, input_names=names[0], output_names=names[1:], dynamo=True,
            verbose=False,
        )  # fmt: skip
    write_bytes(out, program.model_proto.SerializeToString())
    evaluator = onnx.reference.ReferenceEvaluator(onnx.load_model_from_string(out.read_bytes()))
    given = {name: tensor.numpy() for name, tensor in zip(names[0], inputs, strict=True)}
    outputs: Any = evaluator.run(None, given)
    return torch.from_numpy(outputs[0]).float()
