"""Whole studies in processes of their own: Volano's, Optuna's and Ray Tune's with the trial
function of the tutorials.

Each is started as a user starts it, with a new interpreter and empty caches; its clock begins
before that. What comes back is a trace: every evaluation of a trial, when it was seen.

    volano     ``volano.explore`` with its defaults: Optuna's TPE, synchronous halving, packs
    optuna     ``study.optimize``, one trial after the other with all threads, TPE, and
               ``SuccessiveHalvingPruner``
    optuna-2   the same in two processes with one thread each over one journal file
    ray        ``tune.Tuner``, two trials at a time with one thread each, a fresh process for each,
               and ``ASHAScheduler``
    ray-reuse  the same with ``reuse_actors=True``: two processes for all trials
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SYSTEMS = ("volano", "optuna", "optuna-2", "ray", "ray-reuse")


class Event(NamedTuple):
    """An evaluation of a trial.

    Attributes:
        seconds: since the process was started.
        epochs: that the trial has trained.
        loss: of validation.
        accuracy: of validation; NaN for a task without.
    """

    seconds: float
    trial: str
    epochs: float
    loss: float
    accuracy: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trace:
    """What a study came to.

    Attributes:
        seconds: from before the interpreter's start to its end.
        events: in the order in which they were seen.
    """

    seconds: float
    events: list[Event]

    @property
    def config_epochs(self) -> float:
        """Epochs trained, summed over the trials."""
        return sum(self.lengths().values())

    def lengths(self) -> dict[str, float]:
        """Epochs that each trial has trained."""
        lengths: dict[str, float] = {}
        for event in self.events:
            lengths[event.trial] = max(event.epochs, lengths.get(event.trial, 0.0))
        return lengths

    def finals(self) -> list[Event]:
        """The last evaluation of each trial."""
        return list({event.trial: event for event in self.events}.values())

    def best(self) -> Event:
        """The evaluation with the lowest loss."""
        return min(self.events, key=lambda event: event.loss)

    def incumbents(self, least_epochs: float = 0.0) -> list[tuple[float, float, float]]:
        """(configuration-epochs spent, seconds, lowest loss so far) after each evaluation; the loss
        is that of trials that had trained for ``least_epochs`` then, infinite before the first."""
        lengths: dict[str, float] = {}
        rows, lowest = [], float("inf")
        for event in self.events:
            lengths[event.trial] = event.epochs
            lowest = min(lowest, event.loss) if event.epochs >= least_epochs else lowest
            rows.append((sum(lengths.values()), event.seconds, lowest))
        return rows


def measure(
    system: str, name: str, *, trials: int, epochs: int, seed: int = 0, prunes: bool
) -> Trace:
    """Runs a whole study.

    Args:
        system: one of :data:`SYSTEMS`.
        name: of the task.
        epochs: of a trial that is not pruned.
        prunes: whether bad trials are stopped, with eta 3 and rungs at 1, 3, 9, ... epochs.
    """
    with tempfile.TemporaryDirectory(prefix="study") as folder:
        settings = {
            "name": name,
            "trials": trials,
            "epochs": epochs,
            "seed": seed,
            "prunes": prunes,
            "folder": folder,
        }
        start = time.time()
        if system == "optuna-2":
            half = trials // 2
            parts = [
                {"trials": half, "journal": True},
                {"trials": trials - half, "journal": True, "seed": seed + 1000},
            ]
            children = [
                _start("optuna", {**settings, "start": start, **part}, threads=1) for part in parts
            ]
        else:
            threads = 1 if system.startswith("ray") else os.cpu_count() or 1
            children = [_start(system, {**settings, "start": start}, threads=threads)]
        rows = [row for child in children for row in _rows_of(child)]
        seconds = time.time() - start
    return Trace(seconds=seconds, events=sorted(Event(*row) for row in rows))


def _start(system: str, settings: dict[str, Any], threads: int) -> subprocess.Popen[str]:
    folder = settings["folder"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": str(threads),
        "XDG_CACHE_HOME": f"{folder}/cache",
        "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    return subprocess.Popen(
        [sys.executable, __file__, system, json.dumps(settings)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def _rows_of(child: subprocess.Popen[str]) -> list[list[Any]]:
    output, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"{child.args} ended with {child.returncode}")
    return json.loads(output.splitlines()[-1])


# ---- children


class Log:
    """Notes evaluations."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.rows: list[Event] = []

    def note(
        self, trial: Any, epochs: float, figures: dict[str, float], at: float | None = None
    ) -> None:
        seconds = (time.time() if at is None else at) - self.start
        self.rows.append(
            Event(
                seconds, str(trial), epochs, figures["loss"], figures.get("accuracy", float("nan"))
            )
        )


def run_volano(settings: dict[str, Any], log: Log) -> None:
    import volano
    from pack_tasks import BUILDS

    build = functools.partial(BUILDS[settings["name"]], epochs=settings["epochs"])
    rungs = 1 + _num_rungs_below(settings["epochs"]) if settings["prunes"] else 1
    out = Path(settings["folder"]) / "study"
    began = time.time()
    study = volano.explore(
        build, trials=settings["trials"], seed=settings["seed"], eta=3, rungs=rungs, out=out
    )
    for line in study.path("trials.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "rung" and event["value"] is not None:
            log.note(event["trial"], event["epoch"], event["metrics"], began + event["at"])


def _num_rungs_below(epochs: int) -> int:
    """3 for 27 epochs: at 1, 3 and 9."""
    return sum(1 for power in range(10) if 3**power < epochs)


def run_optuna(settings: dict[str, Any], log: Log) -> None:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    from pack_peers import tutorial
    from pack_tasks import SPACES, suggest

    def objective(trial: optuna.Trial) -> float:
        def report(epochs: int, figures: dict[str, float]) -> None:
            log.note(trial.number, epochs, figures)
            trial.report(figures["loss"], epochs)
            if trial.should_prune():
                raise optuna.TrialPruned

        params = suggest(trial, SPACES[settings["name"]])
        return tutorial(settings["name"], params, settings["epochs"], report)["loss"]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=1, reduction_factor=3, min_early_stopping_rate=0
    )
    is_shared = settings.get("journal", False)
    journal = JournalFileBackend(f"{settings['folder']}/journal.log") if is_shared else None
    study = optuna.create_study(
        study_name="study",
        storage=None if journal is None else optuna.storages.JournalStorage(journal),
        load_if_exists=is_shared,
        sampler=optuna.samplers.TPESampler(seed=settings["seed"]),
        pruner=pruner if settings["prunes"] else optuna.pruners.NopPruner(),
    )
    study.optimize(objective, n_trials=settings["trials"])


def run_ray(settings: dict[str, Any], log: Log, reuse_actors: bool = False) -> None:
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.basic_variant import BasicVariantGenerator

    from pack_tasks import SPACES

    class Watch(tune.Callback):
        """Notes what arrives."""

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            del iteration, trials
            log.note(trial.trial_id, result["training_iteration"], result)

    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        object_store_memory=200 * 2**20, _temp_dir=tempfile.mkdtemp(prefix="ray",
        dir=settings["folder"]),
    )  # fmt: skip
    space = {key: _ray_choices(values) for key, values in SPACES[settings["name"]].items()}
    tuner = tune.Tuner(
        tune.with_resources(functools.partial(_ray_trial, settings["name"], settings["epochs"]),
        {"cpu": 1}), param_space=space,
        tune_config=tune.TuneConfig(
            metric="loss", mode="min", num_samples=settings["trials"], reuse_actors=reuse_actors,
            search_alg=BasicVariantGenerator(random_state=settings["seed"]),
            scheduler=ASHAScheduler(max_t=settings["epochs"], grace_period=1, reduction_factor=3)
            if settings["prunes"]
            else None,
        ),
        run_config=tune.RunConfig(storage_path=settings["folder"], verbose=0, callbacks=[Watch()]),
    )  # fmt: skip
    errors = tuner.fit().errors
    ray.shutdown()
    if errors:
        raise SystemExit(f"{len(errors)} trials failed: {errors[0]}")


def _ray_choices(values: Any) -> Any:
    from ray import tune

    if isinstance(values, tuple):
        return tune.loguniform(*values)
    return (
        tune.randint(values.start, values.stop)
        if isinstance(values, range)
        else tune.choice(values)
    )


def _ray_trial(name: str, epochs: int, params: dict[str, Any]) -> None:
    from ray import tune

    from pack_peers import tutorial

    tutorial(name, params, epochs, lambda _, figures: tune.report(figures))


def at_budget(rows: list[tuple[float, float, float]], limit: float, column: int) -> float:
    """The lowest loss of incumbents within so many configuration-epochs (column 0) or seconds
    (column 1)."""
    within = list(itertools.takewhile(lambda row: row[column] <= limit, rows))
    return within[-1][2] if within else float("nan")


def main() -> None:
    system, settings = sys.argv[1], json.loads(sys.argv[2])
    log = Log(settings["start"])
    runs: dict[str, Callable[[dict[str, Any], Log], None]] = {
        "volano": run_volano,
        "optuna": run_optuna,
        "ray": run_ray,
        "ray-reuse": functools.partial(run_ray, reuse_actors=True),
    }
    runs[system](settings, log)
    print(json.dumps(log.rows))


if __name__ == "__main__":
    main()
