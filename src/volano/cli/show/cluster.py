"""Prints a training on a cluster: what fits, how fast, at what price, and the command for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from volano.cli import output
from volano.cli.show.explanation import print_table
from volano.record.format import bytes_text

if TYPE_CHECKING:
    from volano.plan.cluster import ClusterCandidate, ClusterExplanation

_WAYS = {
    "none": "whole copies (DDP)",
    "full": "sharded (FSDP2)",
    "hybrid": "sharded within machines",
}
# What the command names: the rest of a plan is found where it runs.
_NAMED = ("precision", "micro_batch", "recompute", "sharding")
_COLUMNS = ("", "micro-batch", "step", "exchanges", "memory", "", "examples/s", "tokens/s")
_CURVE = ("devices", "", "micro-batch", "step", "exchanges", "memory", "per second", "device-hours")


def train_command(what: str, options: Mapping[str, Any], found: ClusterExplanation) -> list[str]:
    """Returns the words of ``volano`` that train the same under the best plan: the batch is said,
    which an application would choose anew there."""
    words = ["train", what]
    flags = {name: value for name, value in options.items() if name != "path"}
    if options.get("path") is not None:
        words.append(str(options["path"]))
    if ":" not in what:
        flags["batch_size"] = found.num_examples
    flags |= {name: getattr(found.best.plan, name) for name in _NAMED}
    for name, value in flags.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value not in (None, False):
            words += [flag, str(value)]
    return words


def show_cluster(
    found: ClusterExplanation, words: list[str], job: str | None, *, as_json: bool
) -> int:
    """Prints the explanation and the command. Returns the exit code: 1 if nothing fits."""
    from volano.running.job_files import job_file, torchrun_command

    command = torchrun_command(words, found.num_nodes, found.per_node)
    text = None if job is None else job_file(job, words, found.num_nodes, found.per_node)
    if as_json:
        output.print_json({**found.to_json(), "command": command, "job": text})
    else:
        _print(found)
        output.say("", "Command, on each machine" if found.num_nodes > 1 else "Command", command)
        if text is not None:
            output.say("", f"Job for {job}", text)
    return 1 if found.verdict == "NO" else 0


def _print(found: ClusterExplanation) -> None:
    best = found.best
    output.say(
        f"{found.task} on {found.world_size:,} x {found.device_name}, {found.num_nodes:,} "
        f"{'machine' if found.num_nodes == 1 else 'machines'} of {found.per_node} "
        f"({found.machine}; {found.interconnect / 1e9:,.0f} GB/s within, "
        f"{found.network / 1e9:,.1f} GB/s between)",
        f"{best.verdict}: {_WAYS[best.plan.sharding]}, {best.plan.precision}, "
        f"{_seconds(best.time.step)} a step of {found.num_examples:,} examples, "
        f"{_amount(best.device_hours)} device-hours for {found.num_steps:,} steps",
        "",
    )
    print_table(_COLUMNS, map(_row, found.candidates), right=(2, 3, 4, 6, 7))
    output.say("", "Over devices")
    print_table(_CURVE, map(_point, found.curve), right=(0, 3, 4, 5, 6, 7))
    cheapest = found.cheapest
    if cheapest is not None:
        output.say(
            f"Cheapest that fits: {cheapest.world_size:,} "
            f"{'device' if cheapest.world_size == 1 else 'devices'}, "
            f"{_amount(cheapest.device_hours)} device-hours"
        )
    output.say("", *found.notices, f"Figures from: {'; '.join(found.sources)}")


def _row(candidate: ClusterCandidate) -> tuple[str, ...]:
    tokens = candidate.tokens_per_second
    return (
        _WAYS[candidate.plan.sharding],
        _micro_batch(candidate),
        _seconds(candidate.time.step),
        f"{candidate.exchange_share:.0%}",
        bytes_text(candidate.memory.peak),
        candidate.verdict,
        f"{candidate.examples_per_second:,.0f}",
        "" if tokens is None else f"{tokens:,.0f}",
    )


def _point(candidate: ClusterCandidate) -> tuple[str, ...]:
    rate = candidate.tokens_per_second or candidate.examples_per_second
    return (
        f"{candidate.world_size:,}",
        candidate.plan.sharding if candidate.verdict == "FITS" else candidate.verdict,
        _micro_batch(candidate),
        _seconds(candidate.time.step),
        f"{candidate.exchange_share:.0%}",
        bytes_text(candidate.memory.peak),
        f"{rate:,.0f}",
        _amount(candidate.device_hours),
    )


def _micro_batch(candidate: ClusterCandidate) -> str:
    size = candidate.plan.micro_batch
    words = "whole" if size is None else f"{size} x {candidate.passes}"
    return f"{words}, recompute" if candidate.plan.recompute == "blocks" else words


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
