"""Folders of runs as training leaves them, made from the format alone: small, but of the shape of
real ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from volano.plan import Plan

PROMPT = "def read("
NUM_STEPS = 400


def make_run(path: Path, kind: str, *, status: str = "finished", **changes: Any) -> Path:
    """A run's folder: ``kind`` is image, text, video or python; ``changes`` replace fields of
    ``run.json``."""
    path.mkdir(parents=True)
    write(path / "run.json", {**_run(kind, status), **changes})
    write(path / "task.json", _task(kind))
    write(path / "plan.json", Plan.default("cpu").pin(precision="bf16").to_json())
    write_lines(path / "metrics.jsonl", _metrics(kind))
    if kind == "image":
        _write_image(path)
    elif kind == "text":
        _write_text(path)
    elif kind == "video":
        _write_video(path)
    return path


def write(path: Path, value: Any) -> None:
    """JSON."""
    path.write_text(json.dumps(value), encoding="utf-8")


def write_lines(path: Path, records: list[Any]) -> None:
    """JSON, a record a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def scores_of(classes: list[str], hits: int = 20) -> dict[str, Any]:
    """``eval-test.json`` of a classifier: every class is recognised ``hits`` times and taken for
    the next one once."""
    size = len(classes)
    confusion = hits * np.eye(size, dtype=int) + np.roll(np.eye(size, dtype=int), 1, axis=1)
    share = hits / (hits + 1)
    figures = {"precision": share, "recall": share, "f1": share, "support": hits + 1}
    return {
        "num_examples": int(confusion.sum()),
        "accuracy": share,
        "baseline_accuracy": 1 / size,
        "per_class": dict.fromkeys(classes, figures),
        "confusion": confusion.tolist(),
        "classes": classes,
    }


def _run(kind: str, status: str) -> dict[str, Any]:
    figures = {
        "image": {"test_accuracy": 0.9524, "baseline_accuracy": 1 / 3, "num_test": 63},
        "text": {
            "bits_per_byte": 2.043, "bits_per_byte_xz": 2.316, "bits_per_byte_bz2": 2.208,
            "perplexity": 52.3, "tokens_per_second": 412.0,
        },
        "video": {
            "psnr_first_frame": 21.42, "psnr_baselines": {"copy_last": 15.1, "mean_frame": 16.04},
            "frechet_ratio": 2.31, "kernel_ratio": 1.94, "self_test_passed": True,
        },
    }  # fmt: skip
    origins = {
        "image": "bars (three classes)",
        "text": "the standard library's sources",
        "video": "bouncing digits",
    }
    return {
        "schema_version": 1,
        "status": status,
        "name": kind,
        "source": {"kind": kind, "dials": {"seed": 0, "path": None}, "origin": origins.get(kind)},
        "versions": {"volano": "0.1.0", "torch": "2.13.0", "onnx": None},
        "machine": {
            "system": "Linux 6.1", "python": "3.11.7", "processor": "AMD EPYC", "num_cores": 2,
            "num_threads": 2, "host_memory": 2**34, "device": "cpu", "device_name": "AMD EPYC",
            "device_memory": 2**34, "num_accelerators": 0, "precisions": ["fp32", "bf16"],
        },
        "num_steps": NUM_STEPS,
        "notices": ["400 steps (6.2 epochs): 310 ms a step, 3 min"],
        "reason": None,
        "step": NUM_STEPS,
        "metrics": {"train_loss": 1.02, "valid_loss": 1.11, **figures.get(kind, {})},
        "seconds": {"data": 4.1, "plan": 2.0, "train": 121.7, "evaluate": 8.3, "test": 9.0,
        "total": 148.0},
    }  # fmt: skip


def _task(kind: str) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "name": kind,
        "model": {
            "made_by": f"volano.apps.{kind}.make",
            "class": "Network",
            "num_parameters": 1_234_567,
        },
        "objective": f"volano.apps.{kind}.objective",
        "optimizer": "volano.training.optim.muon.MuonAdamW",
        "schedule": "Linear(warmup=0.0, final=0.0)",
        "data": {"class": "Arrays", "num_examples": 4096},
        "valid": {"class": "Arrays", "num_examples": 512, "content_digest": f"{kind}-512"},
        "batch_size": 64,
        "duration": f"{NUM_STEPS}st",
        "num_steps": NUM_STEPS,
        "evaluate_every": "100st",
        "clip_norm": 1.0,
        "seed": 0,
        "tolerance": "precision",
        "digest": "c891bdbf",
    }


def _metrics(kind: str) -> list[dict[str, Any]]:
    noise = np.random.default_rng(0).normal(0, 0.03, NUM_STEPS + 1)
    records: list[dict[str, Any]] = []
    for step in range(10, NUM_STEPS + 1, 10):
        loss = 0.9 + 4.2 * math.exp(-step / 60) + float(noise[step])
        records.append(
            {
                "step": step,
                "epoch": step / 64,
                "loss": loss,
                **({"accuracy": 1 - loss / 6} if kind == "image" else {}),
                "lr": 0.02 * (1 - step / NUM_STEPS),
                "examples_per_second": 210 * (1 + float(noise[step])),
                "memory_bytes": 3 * 2**29 + step * 2**16,
            }
        )
        if step % 100 == 0:
            accuracy = {"valid_accuracy": 1 - loss / 7} if kind == "image" else {}
            records.append({"step": step, "valid_loss": loss + 0.1, **accuracy})
    return records


def _write_image(path: Path) -> None:
    generator = np.random.default_rng(1)
    write(path / "eval-test.json", scores_of(["left", "middle", "right"]))
    sheet = generator.integers(0, 255, (140, 224, 3), dtype=np.uint8)
    Image.fromarray(sheet).save(path / "top-losses.png")
    boxes = [[8, 8, 104, 104], [120, 8, 216, 104]]
    items = [
        {
            "name": f"left/{row}.png",
            "true": "left",
            "predicted": "right",
            "probability": 0.91,
            "loss": 3.2,
            "box": box,
        }
        for row, box in enumerate(boxes)
    ]
    write(path / "top-losses.json", {"items": items})
    Image.fromarray(sheet).save(path / "augmented.png")


def _write_text(path: Path) -> None:
    scores = {
        "bits_per_byte": 2.043, "perplexity": 52.3, "bytes_per_token": 2.79, "num_bytes": 512_000,
        "baselines": {"xz": 2.316, "bz2": 2.208},
    }  # fmt: skip
    write(path / "eval-test.json", scores)
    samples = [
        "e e  tself,( s a e\n  n  _",
        "self, name):\n    return self.name(self)\n    self",
        'self, size=-1):\n        """Read at most size bytes."""\n        self._check_closed()\n  '
        '      return b""',
        'self, size=None):\n        """Read and return up to size bytes, or to the end.\n\n'
        '        None and negative sizes read everything.\n        """\n        if size is '
        "None:\n            size = 0",
    ]
    records = [
        {"step": 100 * (row + 1), "prompt": PROMPT, "text": text}
        for row, text in enumerate(samples)
    ]
    write_lines(path / "previews.jsonl", records)


def _write_video(path: Path) -> None:
    frames = np.arange(1, 9)
    psnr = (22.2 - 0.8 * frames).round(3).tolist()
    scores = {
        "psnr": psnr,
        "ssim": (0.93 - 0.03 * frames).round(4).tolist(),
        "baselines": {
            "copy_last": {
                "psnr": (16 - 0.5 * frames).tolist(),
                "ssim": (0.8 - 0.05 * frames).tolist(),
            },
            "mean_frame": {"psnr": [16.04] * 8, "ssim": [0.41] * 8},
        },
        "frechet_ratio": 2.31,
        "kernel_ratio": 1.94,
        "self_test": {
            "passed": True,
            "reason": None,
            "pretext_accuracy": 0.84,
            "chance": 0.25,
            "frechet": {"real": 1.12, "frozen": 24.7, "shuffled": 11.2, "blurred": 9.6},
            "kernel": {"real": 1.3, "frozen": 31.0, "shuffled": 8.8, "blurred": 12.1},
        },
        "nearest_training_distance": {"generated": 0.141, "test": 0.138},
    }
    write(path / "eval-test.json", scores)
    _write_clips(path / "clips-real.gif", blur=0)
    _write_clips(path / "clips-generated.gif", blur=40)
    Image.fromarray(np.full((64, 256), 90, dtype=np.uint8)).save(path / "predictions.png")


def _write_clips(path: Path, blur: int) -> None:
    """Eight clips of sixteen frames side by side: a square that bounces."""
    pictures = []
    for frame in range(16):
        sheet = np.full((2 * 64, 4 * 64), blur, dtype=np.uint8)
        for clip in range(8):
            top, left = 64 * (clip // 4), 64 * (clip % 4)
            down, right = (abs((7 * clip + 3 * frame + shift) % 80 - 40) for shift in (0, 25))
            sheet[top + 4 + down : top + 20 + down, left + 4 + right : left + 20 + right] = (
                255 - blur
            )
        pictures.append(Image.fromarray(sheet))
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, loop=0)
