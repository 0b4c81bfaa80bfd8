"""What test_separation.py runs in a child process: trainings on the stand-in accelerator, named as
arguments; and tests/gpu on the accelerator that VOLANO_TEST_DEVICE names.

Prints one JSON object: name -> result, or the traceback of what went wrong.
"""

from __future__ import annotations

import functools
import gc
import inspect
import json
import os
import signal
import sys
import tempfile
import traceback
import weakref
from pathlib import Path
from typing import Any

import standin
import torch
from sklearn.datasets import load_digits
from torch import nn

import volano
from volano import Plan
from volano.device import Device

DEVICE = os.environ.get("VOLANO_TEST_DEVICE", "standin:0")
IS_STANDIN = DEVICE.startswith("standin")


def make_net() -> nn.Module:
    """Convolutions, norms and pooling on bytes."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
            )
            self.head = nn.Linear(8 * 4 * 4, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(images.float() / 16))

    return Net()


def objective(model: nn.Module, batch: Any) -> volano.Loss:
    images, labels = batch
    logits = model(images)
    return volano.Loss(
        total=nn.functional.cross_entropy(logits, labels, reduction="sum"),
        weight=len(labels),
        metrics={"accuracy": (logits.argmax(1) == labels).float().mean()},
    )


def augment(batch: Any, generator: torch.Generator) -> Any:
    images, labels = batch
    drawn = torch.rand(len(images), generator=generator, device=generator.device).to(images.device)
    return images * (drawn > 0.1).to(images.dtype)[:, None, None, None], labels


class Computed(torch.utils.data.Dataset):
    """The same examples from a dataset that cannot be resident."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        return self.images[index], self.labels[index]


def make_task(*, computed: bool = False, **fields: Any) -> volano.Task:
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.uint8).view(-1, 1, 8, 8)
    labels = torch.tensor(labels)
    kind = Computed if computed else torch.utils.data.TensorDataset
    base: dict[str, Any] = {
        "model": make_net,
        "objective": objective,
        "data": kind(images[:512], labels[:512]),
        "valid": kind(images[512:640], labels[512:640]),
        "optimizer": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9),
        "batch_size": 64,
        "duration": "2ep",
        "clip_norm": 1.0,
        "augment": augment,
        "ema_decay": 0.9,
    }
    return volano.Task(**{**base, **fields})


class Watch(volano.Observer):
    """Counts between logged lines, and may stop the run."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.counts: list[dict[str, int]] = []

    def on_log(self, record: dict[str, Any]) -> None:
        self.counts.append(dict(standin.counters))
        standin.counters.reset()
        if record["step"] == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


def weights(run: volano.Run) -> torch.Tensor:
    return torch.cat(
        [tensor.detach().cpu().double().flatten() for tensor in run.model.state_dict().values()]
    )


def compare(plan: Plan, **fields: Any) -> dict[str, Any]:
    """The same task on the stand-in under ``plan`` and on the CPU under the baseline."""
    folder = Path(tempfile.mkdtemp())
    watch = Watch()
    on_cpu = volano.train(
        make_task(**fields),
        plan=Plan.baseline("cpu"),
        out=folder / "cpu",
        observer=volano.Observer(),
    )
    there = volano.train(make_task(**fields), plan=plan, out=folder / "there", observer=watch)
    difference = (weights(there) - weights(on_cpu)).norm() / weights(on_cpu).norm()
    return {
        "difference": difference.item(),
        "devices": sorted({str(parameter.device) for parameter in there.model.parameters()}),
        "accuracy": there.metrics["valid_accuracy"] - on_cpu.metrics["valid_accuracy"],
        "counts": watch.counts,
        "notices": there.notices,
    }


def deep_net() -> nn.Module:
    """Blocks with dropout, whose activations and optimizer state are larger than a page."""

    def block() -> nn.Module:
        return nn.Sequential(
            nn.Linear(64, 128), nn.GELU(), nn.Dropout(0.2), nn.Linear(128, 64), nn.LayerNorm(64)
        )

    return nn.Sequential(nn.Flatten(), *[block() for _ in range(4)], nn.Linear(64, 10))


class Live:
    """Bytes of the device's storages that are alive."""

    def __init__(self) -> None:
        self.storages: list[tuple[weakref.ref[Any], int]] = []
        if not IS_STANDIN:
            return
        dressed = standin._dressed

        def noting(host: Any) -> Any:
            storage = dressed(host)
            self.storages.append((weakref.ref(storage), host.nbytes()))
            return storage

        standin._dressed = noting

    def bytes(self) -> int:
        if not IS_STANDIN:
            return torch.accelerator.memory_allocated()
        self.storages = [(ref, size) for ref, size in self.storages if ref() is not None]
        return sum(size for _, size in self.storages)


def savings(**knobs: Any) -> dict[str, Any]:
    """Two runs, with and without knobs; the second's checkpoint is taken up by the first's plan,
    and the reverse."""
    live, folder, plan = (
        Live(),
        Path(tempfile.mkdtemp()),
        Plan.baseline(DEVICE).pin(feed="resident"),
    )
    after_forward: list[int] = []

    def measured(model: nn.Module, batch: Any) -> volano.Loss:
        images, labels = batch
        loss = objective(lambda x: model(x.float() / 16), (images, labels))
        if model.training:
            after_forward.append(live.bytes())
        return loss

    result: dict[str, Any] = {}
    for name, own in (("without", plan), ("with", plan.pin(**knobs))):
        task = make_task(
            model=deep_net, objective=measured, augment=None, clip_norm=0.5, duration="1ep",
            optimizer=functools.partial(torch.optim.AdamW, lr=1e-3),
        )  # fmt: skip
        after_forward.clear()
        gc.collect()
        before = live.bytes()
        run = volano.train(task, plan=own, out=folder / name, observer=volano.Observer())
        result[name] = {"after_forward": after_forward[-1] - before, "notices": run.notices}
        volano.train(task, plan=own, out=folder / f"{name}-parts", observer=Watch(stop_at=3))
        again = volano.resume(folder / f"{name}-parts", task=task, observer=volano.Observer())
        result[name]["weights"] = [weights(run).tolist(), weights(again).tolist()]
        del run, again
    same = [result[name].pop("weights") for name in ("without", "with")]
    return {**result, "is_same": same[0][0] == same[0][1] == same[1][0] == same[1][1]}


def flat(model: nn.Module, batch: Any) -> volano.Loss:
    """The objective of nets that take bytes for numbers."""
    images, labels = batch
    return objective(lambda x: model(x.float() / 16), (images, labels))


def steady(**knobs: Any) -> dict[str, Any]:
    """What is read and waited for between two logged lines, under a plan."""
    plan = Plan.baseline(DEVICE).pin(feed="resident", **knobs)
    watch = Watch()
    task = make_task(model=deep_net, objective=flat, augment=None, valid=None)
    folder = Path(tempfile.mkdtemp()) / "run"
    volano.train(task, plan=plan, out=folder, observer=watch)
    return {"counts": watch.counts}


def cached(**knobs: Any) -> dict[str, Any]:
    """What is read and waited for in steps that take up what a frozen prefix computed, and in those
    that compute it; but for the first of an epoch, which looks at what is kept."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels[:512], dtype=torch.float32) / 16
    data = torch.utils.data.TensorDataset(images, torch.tensor(labels[:512]))

    def net() -> nn.Module:
        trunk = nn.Sequential(nn.Linear(64, 48), nn.GELU()).requires_grad_(False)
        return nn.Sequential(trunk, nn.Linear(48, 10))

    if IS_STANDIN:  # events, which nobody can wait for there, have passed when they are recorded
        Device.mark = lambda _: lambda: None
    found: dict[str, Any] = {}
    for prefix in ("computed", "cached"):
        watch, out = Watch(), Path(tempfile.mkdtemp()) / prefix
        task = make_task(model=net, data=data, valid=None, augment=None, ema_decay=None,
                         duration="4ep")  # fmt: skip
        plan = Plan.baseline(DEVICE).pin(prefix=prefix, **knobs)
        run = volano.train(task, plan=plan, out=out, observer=watch)
        steady = [counts for step, counts in enumerate(watch.counts) if step > 16 and step % 8]
        found[prefix] = {"counts": steady, "notices": run.notices, "weights": weights(run).tolist()}
    both = [torch.tensor(found[name].pop("weights")) for name in ("computed", "cached")]
    return {**found, "difference": (both[0] - both[1]).abs().max().item()}


def deterministic() -> dict[str, Any]:
    """Two runs and one that was stopped, under a deterministic plan; and one that cannot be."""
    folder, plan = Path(tempfile.mkdtemp()), Plan.baseline(DEVICE).pin(deterministic=True)
    seen: set[tuple[bool, str]] = set()

    def watched(model: nn.Module, batch: Any) -> volano.Loss:
        is_on = torch.are_deterministic_algorithms_enabled()
        seen.add((is_on, os.environ.get("CUBLAS_WORKSPACE_CONFIG", "")))
        return objective(model, batch)

    def lacking(model: nn.Module, batch: Any) -> volano.Loss:
        place = torch.zeros(2, device=batch[0].device)
        place.put_(torch.zeros(2, dtype=torch.long, device=place.device), torch.ones_like(place))
        return objective(model, batch)

    task, quiet = make_task(objective=watched), volano.Observer()
    runs = [
        volano.train(task, plan=plan, out=folder / name, observer=quiet) for name in ("one", "two")
    ]
    volano.train(task, plan=plan, out=folder / "parts", observer=Watch(stop_at=11))
    runs.append(volano.resume(folder / "parts", task=task, observer=quiet))
    try:
        volano.train(make_task(objective=lacking), plan=plan, out=folder / "bad", observer=quiet)
        error = ""
    except volano.errors.PlanError as raised:
        error = str(raised)
    return {
        "differences": [(weights(r) - weights(runs[0])).abs().max().item() for r in runs[1:]],
        "seen": sorted(seen),
        "after": torch.are_deterministic_algorithms_enabled(),
        "error": error,
        "reason": json.loads((folder / "bad" / "run.json").read_text())["reason"],
        "recorded": json.loads((folder / "parts" / "run.json").read_text())["deterministic"],
    }


def packed(engine: str) -> dict[str, Any]:
    """What is read and waited for in some steps of a pack, and how far its members are from those
    of a pack on the CPU."""
    from volano.packing import Member, Pack

    tasks = [
        make_task(
            model=deep_net, objective=flat, augment=None, seed=seed, data_seed=0,
            optimizer=functools.partial(torch.optim.AdamW, lr=1e-3 * (1 + seed)),
        )
        for seed in range(3)
    ]  # fmt: skip
    members = [Member(number=number, task=task) for number, task in enumerate(tasks)]
    rows, counts = [], {}
    for place in ("cpu", DEVICE):
        pack = Pack(members, device=place, engine=engine)
        pack.advance(dict.fromkeys(pack.numbers, 3))
        standin.counters.reset()
        pack.advance(dict.fromkeys(pack.numbers, 13))
        counts = dict(standin.counters)
        models = [state["model"] for state in pack.states().values()]
        rows.append(torch.cat([t.double().flatten() for own in models for t in own.values()]))
    return {"counts": counts, "difference": ((rows[0] - rows[1]).norm() / rows[0].norm()).item()}


def broken_member() -> dict[str, Any]:
    """The losses of a pack one of whose members has a gradient that is no number, though its loss
    is one."""
    from volano.packing import Member, Pack

    def without_slope(model: nn.Module, batch: Any) -> volano.Loss:
        loss = flat(model, batch)
        first = next(iter(model.parameters()))
        return volano.Loss(total=loss.total + (0.0 * first).abs().sqrt().sum(), weight=loss.weight)

    members = [
        Member(number=number, task=make_task(
            model=deep_net, objective=own, augment=None, ema_decay=None, valid=None, clip_norm=None,
        ))
        for number, own in enumerate((flat, without_slope))
    ]  # fmt: skip
    pack = Pack(members, device=DEVICE, engine="loop")
    pack.advance(dict.fromkeys(pack.numbers, 3))
    return {"losses": pack.losses()}


def without_float64() -> dict[str, Any]:
    """A run, and the check of a plan, on a device that refuses float64, as Apple's do."""
    from volano.planner.parity.check import check_parity

    dress = standin._Call.dress

    def refusing(call: Any, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
            raise TypeError("the device has no float64")
        return dress(call, value)

    standin._Call.dress = refusing  # pyright: ignore[reportAttributeAccessIssue]
    try:
        plan = Plan.baseline(DEVICE).pin(feed="resident", optimizer="fused")
        parity = check_parity(make_task(), plan.pin(precision="bf16"))
        found = compare(plan)
        return {"passed": parity.passed, "reason": parity.reason, "run": found["difference"]}
    finally:
        standin._Call.dress = dress


def one_of_two_ranks() -> dict[str, Any]:
    """What is read and waited for in steps of one of two ranks, whose exchanges bring nothing."""
    import torch.distributed as dist
    from torch.testing._internal.distributed import fake_pg

    from volano.device import Ranks
    from volano.training import Session

    dist.Backend.register_backend(
        "hollow", fake_pg._create_fake_pg, extended_api=True, devices=["cpu", standin.NAME]
    )
    dist.init_process_group("hollow", store=fake_pg.FakeStore(), rank=0, world_size=2)
    own = nn.parallel.DistributedDataParallel

    class Hollow(own):
        """Hands back the gradients that it is to exchange: the group gives it no result."""

        __signature__ = inspect.signature(own)  # which is asked for what it takes

        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            self.register_comm_hook(None, handed_back)

    def handed_back(_state, bucket):  # torch reads annotations, and these would be texts
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    nn.parallel.DistributedDataParallel = Hollow  # pyright: ignore[reportPrivateImportUsage]
    try:
        task = make_task(model=deep_net, objective=flat, augment=None, valid=None)
        plan = Plan.baseline(DEVICE).pin(feed="resident", optimizer="fused")
        session = Session(task, plan, ranks=Ranks(world_size=2))
        agree = session.ranks.agreement()
        for batch in session.feed.batches(session.keys()):
            if session.step == 4:
                standin.counters.reset()
            session.step_once(batch, session.step)
            session.step += 1
            agree(False, False)
        agree.finish()
        return {"counts": dict(standin.counters), "steps": session.step}
    finally:
        nn.parallel.DistributedDataParallel = own  # pyright: ignore[reportPrivateImportUsage]
        dist.destroy_process_group()


def number_on_device() -> dict[str, Any]:
    """What a number costs that ranks add up."""
    from volano.training.distributed.data_parallel import _on_device

    like = torch.zeros((), device=DEVICE)
    standin.counters.reset()
    value = _on_device(3.0, like)
    return {"counts": dict(standin.counters), "value": value.item()}


def knobs_of(text: str) -> dict[str, Any]:
    pairs = (pair.split("=") for pair in text.split(","))
    return {name: int(value) if value.isdigit() else value for name, value in pairs}


def main(name: str) -> dict[str, Any]:
    there = Plan.baseline(DEVICE)
    if name.startswith("steady:"):
        return steady(**knobs_of(name.removeprefix("steady:")))
    if name.startswith("cached:"):
        return cached(**knobs_of(name.removeprefix("cached:")))
    if name.startswith("pack:"):
        return packed(name.removeprefix("pack:"))
    if name == "broken member":
        return broken_member()
    if name == "without float64":
        return without_float64()
    if name == "ranks":
        return one_of_two_ranks()
    if name == "number":
        return number_on_device()
    if name == "deterministic":
        return deterministic()
    if name == "resident":
        return compare(there.pin(feed="resident"))
    if name == "steady":
        return compare(there.pin(feed="resident"), augment=None)
    if name == "ring":
        return compare(there, computed=True, augment=None)
    if name == "worker":
        return compare(there.pin(workers=1), computed=True)
    if name == "default":
        return compare(Plan.default(DEVICE))
    if name == "micro":
        # A batch statistic would couple the examples: without BatchNorm's training mode there is
        # none.
        def frozen(model: nn.Module, batch: Any) -> volano.Loss:
            model.body[1].eval()
            return objective(model, batch)

        return compare(there.pin(feed="resident", micro_batch=24), objective=frozen)
    if name in ("bf16", "fp16"):
        return compare(there.pin(feed="resident", precision=name))
    if name == "resume":
        folder = Path(tempfile.mkdtemp())
        plan = there.pin(feed="resident")
        whole = volano.train(
            make_task(), plan=plan, out=folder / "whole", observer=volano.Observer()
        )
        volano.train(make_task(), plan=plan, out=folder / "parts", observer=Watch(stop_at=11))
        resumed = volano.resume(folder / "parts", task=make_task(), observer=volano.Observer())
        return {
            "difference": (weights(resumed) - weights(whole)).abs().max().item(),
            "status": resumed.status,
        }
    if name.startswith("savings:"):
        return savings(**knobs_of(name.removeprefix("savings:")))
    if name == "chosen":
        run = volano.train(
            make_task(), out=Path(tempfile.mkdtemp()) / "run", observer=volano.Observer()
        )
        return {"device": run.plan.device, "feed": run.plan.feed}
    if name == "doctor":
        return volano.doctor()
    raise ValueError(name)


def attempt(name: str) -> dict[str, Any]:
    try:
        return main(name)
    except Exception:  # noqa: BLE001 - told to the test
        return {"traceback": traceback.format_exc()}
    finally:
        standin.counters.reset()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if IS_STANDIN:
        standin.install()
    print(json.dumps({name: attempt(name) for name in sys.argv[1:]}), flush=True)
