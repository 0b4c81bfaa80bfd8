"""A classifier for other programs. Every file is loaded back and compared before it is called
written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from volano.apps.targets.classes import OneClass
from volano.apps.targets.target import Target
from volano.errors import CheckpointError, MissingExtraError, RunError, UsageError
from volano.record.files import check_out, write_bytes
from volano.training import RunFolder, load_tensors, load_weights, save_weights

SAMPLES = "samples.safetensors"
_CLASSES = OneClass(names=())
FORMATS, HF = ("safetensors", "pt2", "onnx"), "hf"
# The same operations in another program: fp32 rounding over some twenty layers stays far below
# this.
_TOLERANCE = 1e-3


def export_classifier(
    model: nn.Module,
    fresh: nn.Module,
    images: Tensor,
    to: str,
    out: Path,
    *,
    target: Target = _CLASSES,
    what: str = "images",
) -> dict[str, Any]:
    """Writes ``model`` to ``out``.

    Args:
        model: trained, on the host.
        fresh: another of the same structure, for loading weights back.
        images: bytes uint8 [N, C, H, W] to compare predictions on, N at least 2.
        to: one of ``FORMATS``.
        out: the file.
        target: what the network gives; programs give it in the units of the data.
        what: what they are, in words; the name of ONNX's input.

    Returns:
        ``path``, ``bytes``, ``num_compared`` and ``largest_difference`` of the logits.

    Raises:
        UsageError: another format.
        MissingExtraError: ONNX without its packages.
        RunError: what was loaded back predicts something else.
    """
    if to not in FORMATS:
        raise UsageError(
            f"A model must be exported to one of {', '.join((*FORMATS, HF))}", got=repr(to)
        )
    model.eval()
    whole = model if to == "safetensors" else target.finished(model)
    with torch.no_grad():
        expected = whole(images).float()
        if to == "onnx":
            got = _onnx(whole, (what, target.output), images, out)
        elif to == "pt2":
            got = _pt2(whole, images, out)
        else:
            got = _safetensors(model, fresh.eval(), images, out)
    difference = largest_difference(got, expected, _TOLERANCE * target.scale(expected))
    return {
        "path": str(out),
        "format": to,
        "bytes": out.stat().st_size,
        "num_compared": len(images),
        "largest_difference": difference,
    }


def largest_difference(got: Tensor, expected: Tensor, most: float | Tensor) -> float:
    """Returns by how much the outputs of what was loaded back differ from the model's.

    Raises:
        RunError: by more than ``most``.
    """
    differences = (got - expected).abs()
    difference = differences.max().item()
    if not (differences <= most).all():
        raise RunError(
            "An exported model must predict what the run's model does",
            got=f"logits that differ by {difference}",
        )
    return difference


def place_to_export(folder: RunFolder, to: str, out: str | Path | None) -> Path:
    """Returns the file (of ``hf`` the folder) to write: ``out``, or one in the run's folder.

    Raises:
        UsageError: it cannot be written there.
    """
    suffix = {"safetensors": "exported.safetensors"}.get(to, to)
    target = Path(out) if out is not None else folder.path / f"model.{suffix}"
    if to != HF and (not target.parent.is_dir() or target.is_dir()):
        raise UsageError("`out` must name a file in a folder that exists", got=str(target))
    if out is not None:
        check_out(target)
    return target


def kept_samples(folder: RunFolder, name: str) -> Tensor:
    """Returns the examples that a run keeps to compare predictions on, by their name there.

    Raises:
        CheckpointError: they are missing or damaged.
    """
    try:
        return load_tensors(folder.path / SAMPLES)[name]
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(
            f"A run to export must hold {SAMPLES} to compare predictions on", got=f"{error}"
        ) from error


def _safetensors(model: nn.Module, fresh: nn.Module, images: Tensor, out: Path) -> Tensor:
    save_weights(model, out)
    load_weights(fresh, out)
    return fresh(images).float()


def _pt2(model: nn.Module, images: Tensor, out: Path) -> Tensor:
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (images[:2],), dynamic_shapes=({0: batch},))
    content = io.BytesIO()  # given a name that is no UTF-8, the library ends the process
    torch.export.save(program, content)
    write_bytes(out, content.getvalue())
    return torch.export.load(io.BytesIO(out.read_bytes())).module()(images).float()


def _onnx(model: nn.Module, names: tuple[str, str], images: Tensor, out: Path) -> Tensor:
    try:
        import onnx.reference
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise MissingExtraError(
            "Export to ONNX needs onnx and onnxscript",
            got=str(error),
            remedy="pip install 'volano[onnx]'",
        ) from error
    batch = torch.export.Dim("batch", min=1)
    program: Any = torch.onnx.export(
        model, (images[:2],), dynamic_shapes=({0: batch},), input_names=names[:1],
        output_names=names[1:], dynamo=True, verbose=False,
    )  # fmt: skip
    write_bytes(out, program.model_proto.SerializeToString())
    evaluator = onnx.reference.ReferenceEvaluator(onnx.load_model_from_string(out.read_bytes()))
    (logits,) = evaluator.run(None, {names[0]: images.numpy()})
    return torch.from_numpy(logits).float()
