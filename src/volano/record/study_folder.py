"""The folder that a study leaves behind, and what its files hold.

study.json     what the study is, where it stands, how to resume it
trials.jsonl   one line for every event of a trial
packs.jsonl    one line for every pack in every assignment
journal.log    Optuna's journal of the study (``optuna-dashboard journal.log``); absent with a
               storage of one's own
states/        trial-00000012.pt: where a live trial stands, see trial_states.py
report.html    see volano.report
.lock, owner.json   while a process works in it

JSON has no NaN and no infinity: null stands for both.

``study.json``::

    {"schema_version": 1,
     "status": "starting" | "running" | "stopped" | "finished" | "failed",
     "reason": why it stopped or failed, or null,
     "name": of the study in Optuna's storage,
     "storage": URL of the storage without its password, "object", or null for journal.log of the
     folder, "source": {"kind": "python"} | {"kind": "reference", "reference": "module:build"} |
     {"kind": "image", ...}, "settings": {"trials": 128, "minutes": null, "metric": "loss",
     "direction": "minimize", "seed": 0, "eta": 3,
                  "shares": [0.037, ..., 1.0], "width": 43, "quorum": 0.66, "sampler": "TPESampler",
                  "device": null, "nproc": null, "ray": null},
     "data": {"data": {...}, "valid": {...}}, both in words and digests as in a run's task.json,
     "versions": {"volano": ..., "torch": ..., "optuna": ..., ...},
     "created": ISO time of the first run,
     "seconds": of all runs of the study together,
     "counts": {"asked": 128, "running": 0, "pruned": 120, "complete": 5, "failed": 3},
     "steps": configuration-steps made, "steps_per_second": over the seconds in which packs trained,
     "best": {"number": 17, "params": {...}, "value": 0.11, "share": 1.0} | null,
     "notices": [...]}

``trials.jsonl``; each line has ``"event"``, ``"trial"`` (but for the last two) and ``"at"``,
seconds into the study::

    {"event": "asked", "trial": 17, "params": {"lr": 0.01, ...}, "at": 0.2}
    {"event": "rung",  "trial": 17, "rung": 0, "share": 0.037, "step": 36, "epoch": 0.75, "value":
    0.9,
                       "metrics": {"loss": 0.9, "accuracy": 0.7}, "training_loss": 1.1, "seconds":
                       0.08, "worker": 0}
    {"event": "ended", "trial": 17, "state": "complete" | "pruned" | "failed", "value": 0.11,
    "reason": null} {"event": "decided", "rung": 0, "kept": [17, ...], "cut": [3, ...]}
    {"event": "lost", "worker": 1, "trials": [4, ...], "reason": "..."}

A ``rung`` event's ``seconds`` are the trial's part of its pack's: divided by the members. ``value``
is the metric's.

``packs.jsonl``::

    {"assignment": 3, "rung": 1, "share": 0.111, "worker": 0, "numbers": [17, ...], "structure":
    "6fa0c2e1",
     "engine": "loop", "apart": ["batch_size: 32, 64", ...], "refused": {"lowered": "...", ...},
     "seconds": 1.9, "startup_seconds": 0.4, "evaluation_seconds": 0.1, "steps": 4128,
     "solo_seconds_per_step": 0.0009 | null, "gain": 2.5 | null, "at": 3.1}

Packs of one ``structure`` could have been one; ``apart`` is in what it differs from others of the
study, its own value first, and ``refused`` why engines were not taken. ``seconds`` are of the
worker, start-up (making the pack, timing engines, compiling) included, evaluation not; workers
train side by side. ``gain`` is what the same steps would have taken one member at a time over what
their training took, start-up apart: ``solo_seconds_per_step * steps / (seconds -
startup_seconds)``. It is null if the engine is the loop, which is one member at a time, and
if that was not timed.
"""

from __future__ import annotations

from typing import ClassVar

from volano.errors import UsageError
from volano.record.json_values import Kinds
from volano.record.run_folder import PAGE, RunFolder

STUDY, TRIALS, PACKS = "study.json", "trials.jsonl", "packs.jsonl"
JOURNAL, STATES = "journal.log", "states"


class StudyFolder(RunFolder):
    """Reads and writes a study's folder. Use :meth:`reserve` and :meth:`make`, or :meth:`open`."""

    noun, main, inner = "study", STUDY, STATES
    begun = (TRIALS, PACKS, JOURNAL, PAGE)
    kinds: ClassVar[Kinds] = {
        **dict.fromkeys(("source", "counts", "data", "versions", "best"), dict),
        **dict.fromkeys(("status", "reason", "name", "storage"), str), "notices": list,
        "counts": {"asked": int},
        "settings": {
            **dict.fromkeys(("trials", "seed", "eta", "rungs", "width", "nproc", "workers"), int),
            **dict.fromkeys(("metric", "direction", "device", "ray", "precision", "sampler"), str),
            **dict.fromkeys(("minutes", "quorum"), (int, float)), "shares": list,
        },
    }  # fmt: skip
    update = RunFolder.update_run

    def _has_begun(self) -> bool:
        return self.path.is_dir() and bool(self.read_lines(TRIALS))

    def _refusal(self) -> UsageError:
        if not (self.path / STUDY).is_file():
            return super()._refusal()
        return UsageError(
            "A study must start in a folder of its own",
            got=f"{self.path}, which holds one",
            remedy="Name another with `out`, or continue this one with `resume`",
        )
