"""Records what short runs of fixed seeds give, and compares two records: for changes of form, after
which no figure may have moved.

    git worktree add ../before COMMIT
    python benchmarks/golden_runs.py record before.json --tree ../before
    python benchmarks/golden_runs.py record after.json
    python benchmarks/golden_runs.py compare before.json after.json

Every run is made by the command line in processes of its own, on one thread of a CPU. Kept are the
weights (SHA-256 of their bytes), the figures, and of every JSON object that a command prints or a
folder holds the names and types of its fields; values that depend on time, place or machine are
left out. Records of two machines cannot be compared.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open

HERE = Path(__file__).resolve().parent

# A task of one's own, and a study over it; a module beside the runs.
OWN = """
import functools, os, time, torch, volano
from sklearn.datasets import load_digits

pixels, labels = load_digits(return_X_y=True)
pixels, labels = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)


def model():
    return torch.nn.Sequential(
        torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(32, 10)
    )


def objective(model, batch):
    time.sleep(float(os.environ.get("PAUSE", 0)))
    logits = model(batch[0])
    return volano.Loss(
        total=torch.nn.functional.cross_entropy(logits, batch[1], reduction="sum"),
        weight=len(batch[1]),
        metrics={"accuracy": (logits.argmax(1) == batch[1]).float().mean()},
    )


def make(lr=3e-3, width=None):
    return volano.Task(
        model=model, objective=objective,
        data=torch.utils.data.TensorDataset(pixels[:1024], labels[:1024]),
        valid=torch.utils.data.TensorDataset(pixels[1024:1280], labels[1024:1280]),
        optimizer=functools.partial(torch.optim.AdamW, lr=lr), schedule=volano.cosine(warmup=0.05),
        batch_size=64, duration="3ep", clip_norm=1.0, seed=0, ema_decay=0.9,
    )


task = make()


def build(trial):
    return make(lr=trial.suggest_float("lr", 1e-4, 1e-1, log=True))
"""

# Fields whose values are of a machine or a moment; their names and types are compared all the same.
_OF_THE_MOMENT = (
    "seconds", "per_second", "memory", "bytes", "measured", "predicted", "created", "started",
    "ended", "time", "share", "path", "run", "host", "version", "machine", "startup", "step_",
    "total", "report", "device", "digest", "notices", "reason", "message", "headline", "sha",
    "study", "gain", "factor", "origin", "fingerprint", "bounds", "kinds", "rates", "folder",
)  # fmt: skip
# Which files a planned run's explanation mentions as candidates depends on what was measured.
_VARYING_LISTS = ("candidates", "refused", "reasons", "knobs")


class Recorder:
    """Runs commands of one checkout in a folder, and notes what they gave."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self.folder = folder
        self.found: dict[str, Any] = {}
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tree / "src"), str(folder)]),
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }

    def volano(self, name: str, *arguments: str, code: int = 0, **environment: str) -> str:
        """Runs a command; notes the shape of the JSON object that it prints last."""
        done = subprocess.run(
            [sys.executable, "-m", "volano", *arguments],
            cwd=self.folder, env={**self.environment, **environment}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        if done.returncode != code:
            raise SystemExit(
                f"{name}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            )
        if "--json" in arguments:
            self.found[f"{name}: printed"] = shape_of(json.loads(done.stdout.splitlines()[-1]))
        return done.stdout

    def note_run(self, name: str) -> None:
        """Notes a run's folder: its files, weights, figures, and the shapes of its JSON files."""
        path = self.folder / name
        self.found[f"{name}: files"] = sorted(
            str(file.relative_to(path))
            for file in path.rglob("*")
            if file.is_file() and file.name != "lock"
        )
        self.found[f"{name}: weights"] = digest_of_weights(path / "model.safetensors")
        record = json.loads((path / "run.json").read_text())
        self.found[f"{name}: run.json"] = shape_of(record)
        self.found[f"{name}: figures"] = {
            key: value
            for key, value in record.get("metrics", {}).items()
            if not is_of_the_moment(key)
        }
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        kept = [
            {key: value for key, value in line.items() if not is_of_the_moment(key)}
            for line in lines
        ]
        self.found[f"{name}: metrics.jsonl"] = hashlib.sha256(json.dumps(kept).encode()).hexdigest()
        for file in ("plan.json", "task.json", "explanation.json"):
            if (path / file).exists():
                self.found[f"{name}: {file}"] = shape_of(json.loads((path / file).read_text()))


def is_of_the_moment(name: str) -> bool:
    """Whether a field's value is left out."""
    return any(part in name for part in _OF_THE_MOMENT)


def shape_of(value: Any, name: str = "") -> Any:
    """Returns names and types of a JSON value; values themselves where they follow from the
    experiment."""
    if isinstance(value, dict):
        return {key: shape_of(item, key) for key, item in sorted(value.items())}
    if isinstance(value, list):
        if name in _VARYING_LISTS:
            return [shape_of(value[0], name)] if value else []
        return [shape_of(item, name) for item in value]
    if is_of_the_moment(name) or (isinstance(value, float) and not value.is_integer()):
        return (
            "number"
            if isinstance(value, int | float) and not isinstance(value, bool)
            else type(value).__name__
        )
    # In which of its modules Volano keeps a function may change.
    return (
        re.sub(r"\bvolano(?:\.[a-z_0-9]+)+\.(?=\w)", "volano.", value)
        if isinstance(value, str)
        else value
    )


def digest_of_weights(path: Path) -> str:
    """Returns the SHA-256 of all tensors of a file, by name."""
    digest = hashlib.sha256()
    with safe_open(path, framework="numpy") as file:
        for key in sorted(file.keys()):
            tensor = file.get_tensor(key)
            digest.update(f"{key} {tensor.dtype} {tensor.shape}".encode() + tensor.tobytes())
    return digest.hexdigest()


PINS = ("--no-plan", "--threads", "1")


def image(recorder: Recorder) -> None:
    """The embedded digits, then every verb for the run."""
    recorder.volano(
        "image",
        "train",
        "image",
        "--epochs",
        "1",
        "--size",
        "thin",
        *PINS,
        "--out",
        "digits",
        "--json",
    )
    recorder.note_run("digits")
    recorder.volano("image eval", "eval", "digits", "--json")
    recorder.volano("image export", "export", "digits", "--to", "safetensors", "--json")
    recorder.volano("image report", "report", "digits", "--json")
    recorder.volano("image explain", "explain", "image", "--on", "H100", "--json")
    pictures = recorder.folder / "pictures"
    pictures.mkdir()
    from PIL import Image

    for number in range(3):
        Image.new("L", (8, 8), 80 * number).save(pictures / f"{number}.png")
    recorder.volano("image predict", "predict", "digits", "pictures", "--json")


def text(recorder: Recorder) -> None:
    """A language model of a page of Python's own sources."""
    (recorder.folder / "books").mkdir()
    (recorder.folder / "books" / "json.txt").write_text(Path(json.__file__).read_text() * 6)
    recorder.volano(
        "text", "train", "text", "books", "--epochs", "1", "--depth", "2", "--context", "64",
        "--batch-size", "8", *PINS, "--out", "text", "--json",
    )  # fmt: skip
    recorder.note_run("text")
    recorder.volano("text eval", "eval", "text", "--json")
    recorder.volano(
        "text generate",
        "generate",
        "text",
        "--prompt",
        "def ",
        "--tokens",
        "8",
        "--seed",
        "1",
        "--json",
    )
    recorder.found["text generated"] = recorder.volano(
        "text generate", "generate", "text", "--prompt", "def ", "--tokens", "8", "--seed", "1"
    )


def classify(recorder: Recorder) -> None:
    """Lines of three modules told apart; in minutes too few for the language model's head, whose
    steps go by time."""
    import argparse as one
    import csv as other
    import textwrap

    with (recorder.folder / "lines.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for module in (one, other, textwrap):
            lines = [
                line.strip()
                for line in Path(str(module.__file__)).read_text().splitlines()
                if len(line) > 40
            ]
            for line in lines[:60]:
                writer.writerow([line, module.__name__])
    recorder.volano(
        "classes",
        "train",
        "text",
        "lines.csv",
        "--classify",
        "--minutes",
        "0.1",
        *PINS,
        "--out",
        "classes",
        "--json",
    )
    recorder.note_run("classes")
    recorder.volano("classes eval", "eval", "classes", "--json")
    (recorder.folder / "some.txt").write_text("parser.add_argument('--name')")
    recorder.volano("classes predict", "predict", "classes", "some.txt", "--json")


def video(recorder: Recorder) -> None:
    """The embedded bouncing digits."""
    recorder.volano(
        "video", "train", "video", "--epochs", "0.02", "--frames", "4", "--batch-size", "8",
        *PINS, "--out", "video", "--json",
    )  # fmt: skip
    recorder.note_run("video")


def own(recorder: Recorder) -> None:
    """A task of one's own: plain, in micro-batches, planned with pins, by two ranks, stopped and
    resumed."""
    recorder.volano("plain", "train", "own:task", *PINS, "--out", "plain", "--json")
    recorder.note_run("plain")
    recorder.volano(
        "micro", "train", "own:task", *PINS, "--micro-batch", "24", "--out", "micro", "--json"
    )
    recorder.note_run("micro")
    recorder.volano(
        "two ranks", "train", "own:task", *PINS, "--nproc", "2", "--out", "ranks", "--json"
    )
    recorder.note_run("ranks")
    pins = (
        "--precision", "fp32", "--memory-format", "contiguous", "--no-compile", "--micro-batch",
        "64", "--threads", "1", "--feed", "ring", "--workers", "0", "--forbid", "optimizer=fused",
    )  # fmt: skip
    recorder.volano("planned", "train", "own:task", *pins, "--out", "planned", "--json")
    recorder.note_run("planned")
    recorder.volano("explain", "explain", "own:task", *pins, "--json")
    recorder.volano("explain on", "explain", "own:task", "--on", "A100", "--json")
    recorder.volano("plans", "plans", "list", "--json")
    recorder.volano("compared", "report", "plain", "micro", "--json")
    stop_and_resume(recorder)


def stop_and_resume(recorder: Recorder) -> None:
    """Kills a run after its tenth step and goes on with it."""
    arguments = ["train", "own:task", *PINS, "--save-every", "5st", "--out", "killed"]
    child = subprocess.Popen(
        [sys.executable, "-m", "volano", *arguments],
        cwd=recorder.folder, env={**recorder.environment, "PAUSE": "0.05"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    checkpoints = recorder.folder / "killed" / "checkpoints"
    while child.poll() is None and not list(checkpoints.glob("step-*1?")):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    recorder.volano("resume", "resume", "killed", "--code", "own:task", "--json")
    recorder.note_run("killed")
    recorder.found["killed as whole"] = (
        recorder.found["killed: weights"] == recorder.found["plain: weights"]
    )


def study(recorder: Recorder) -> None:
    """A study of a task with its table, one over an application, and the training of the best."""
    recorder.volano(
        "study",
        "explore",
        "own:build",
        "--trials",
        "6",
        "--seed",
        "0",
        "--nproc",
        "1",
        "--out",
        "study",
        "--json",
    )
    path = recorder.folder / "study"
    recorder.found["study: files"] = sorted(
        str(file.relative_to(path))
        for file in path.rglob("*")
        if file.is_file() and file.name != "lock"
    )
    recorder.found["study: study.json"] = shape_of(json.loads((path / "study.json").read_text()))
    recorder.volano("best", "train", "--from", "study", "--trust", *PINS, "--out", "best", "--json")
    recorder.note_run("best")
    recorder.volano("study report", "report", "study", "--json")
    recorder.volano("doctor", "doctor", "--json")


PARTS: tuple[Callable[[Recorder], None], ...] = (own, study, image, text, classify, video)


def record(target: Path, tree: Path, names: list[str]) -> None:
    """Makes all runs with a checkout's code and writes what they gave."""
    folder = Path(tempfile.mkdtemp(prefix="golden-"))
    try:
        (folder / "own.py").write_text(OWN)
        recorder = Recorder(tree.resolve(), folder)
        for part in PARTS:
            if not names or part.__name__ in names:
                start = time.perf_counter()
                part(recorder)
                print(
                    f"{part.__name__}: {time.perf_counter() - start:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
        target.write_text(json.dumps(recorder.found, indent=1, sort_keys=True))
    finally:
        shutil.rmtree(folder)


def differences(before: Any, after: Any, place: str = "") -> list[str]:
    """Returns every place at which two records differ, in words."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = [f"{place}.{key}: only before" for key in before.keys() - after.keys()]
        found += [f"{place}.{key}: only after" for key in after.keys() - before.keys()]
        for key in sorted(before.keys() & after.keys()):
            found += differences(before[key], after[key], f"{place}.{key}")
        return found
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            line
            for index, pair in enumerate(zip(before, after, strict=True))
            for line in differences(*pair, f"{place}[{index}]")
        ]
    return [] if before == after else [f"{place}: {before!r} before, {after!r} after"]


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("record")
    recording.add_argument("target", type=Path)
    recording.add_argument(
        "--tree", type=Path, default=HERE.parent, help="checkout whose src/ is run"
    )
    recording.add_argument(
        "--only",
        nargs="*",
        default=[],
        help="parts to make: " + ", ".join(p.__name__ for p in PARTS),
    )
    comparing = verbs.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.verb == "record":
        record(arguments.target, arguments.tree, arguments.only)
        return
    before, after = (json.loads(path.read_text()) for path in (arguments.before, arguments.after))
    found = differences(before, after)
    print("\n".join(found) or f"{len(before)} records are the same")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
