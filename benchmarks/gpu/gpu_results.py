"""What a check found: JSON lines, and a table of the figures beside those that are aimed at."""

from __future__ import annotations

import contextlib
import gc
import json
import signal
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from volano.device import Device

# stage, check -> figure, least and most; None has no bound.
AIMS: Mapping[tuple[str, str], tuple[str, float | None, float | None]] = {
    ("arithmetic", "fp32 convolution"): ("error", None, 1e-5),
    ("arithmetic", "train resident"): ("difference", None, 1e-3),
    ("arithmetic", "train bf16"): ("difference", None, 0.1),
    ("memory", "gpt2 bf16"): ("ratio", 0.97, 1.03),
    ("memory", "resnet bf16"): ("ratio", 0.97, 1.03),
    ("speed", "resnet beside the expert"): ("planned_over_expert", 1.0, None),
    ("speed", "gpt2 beside the expert"): ("planned_over_expert", 1.0, None),
    ("packs", "128 members"): ("times_solo", 15.0, None),
    ("feed", "device-bound"): ("data_wait_share", None, 0.1),
    ("resume", "resnet"): ("stopped_over_equal", None, 1.5),
    ("deterministic", "resnet"): ("stopped_and_resumed", None, 0.0),
    ("deterministic", "gpt2"): ("stopped_and_resumed", None, 0.0),
}


class Results:
    """Writes results of one stage as they come.

    Args:
        path: the file, to which lines are added.
        stage: the stage.
        device: the device that is checked.
    """

    def __init__(self, path: Path, stage: str, device: Device) -> None:
        self._path, self._stage, self._device = path, stage, device
        self._started = time.perf_counter()

    def emit(self, check: str, **figures: Any) -> None:
        """Writes one result."""
        seconds = round(time.perf_counter() - self._started, 1)
        line = json.dumps(
            {"stage": self._stage, "check": check, "at_seconds": seconds, **figures}, default=str
        )
        print(line[:1500], flush=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    @contextlib.contextmanager
    def check(self, name: str, seconds: int = 60) -> Iterator[None]:
        """A check with a time limit; what goes wrong in it is a result like any other."""

        def late(*_: Any) -> None:
            raise TimeoutError(f"{seconds} s")

        before = signal.signal(signal.SIGALRM, late)
        signal.alarm(seconds)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - what is looked for
            self.emit(
                name,
                error=f"{type(error).__name__}: {error}"[:600],
                where=traceback.format_exc().strip().splitlines()[-3:],
            )
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            gc.collect()
            self._device.release_memory()


def read_results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def summary(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each figure with an aim, then one for each error."""
    lines = []
    for (stage, check), (figure, least, most) in AIMS.items():
        found = [one for one in results if (one["stage"], one["check"]) == (stage, check)]
        value = next((one[figure] for one in found if figure in one), None)
        aim = " ".join(
            word
            for bound, word in ((least, f"at least {least}"), (most, f"at most {most}"))
            if bound is not None
        )
        if value is None:
            word, text = "not measured", ""
        else:
            is_met = (least is None or value >= least) and (most is None or value <= most)
            word, text = "met" if is_met else "MISSED", f"{value:.4g}"
        lines.append(f"{stage:<12}{check:<28}{figure:<22}{text:>10}  {aim:<16}{word}")
    errors = [one for one in results if "error" in one and isinstance(one["error"], str)]
    lines += [f"ERROR {one['stage']}, {one['check']}: {one['error'][:160]}" for one in errors]
    return lines
