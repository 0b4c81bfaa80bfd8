"""The commands that start a training on several machines: torchrun's, and as jobs of SLURM and of
Ray."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from volano.errors import UsageError

_PORT = 29500


def torchrun_command(
    words: Sequence[str], num_nodes: int, per_node: int, address: str = "FIRST_MACHINE"
) -> str:
    """Returns the command that each machine runs; ``words`` are those of ``volano``.

    Args:
        words: the arguments of ``volano``.
        num_nodes, per_node: machines, and devices of each.
        address: the name of the first machine, as the shell is to read it.
    """
    if num_nodes == 1:
        place = ["--standalone"]
    else:
        place = [f"--nnodes={num_nodes}", "--rdzv-backend=c10d"]
        place += [f"--rdzv-endpoint={address}:{_PORT}", "--rdzv-id=volano"]
    parts = ["torchrun", *place, f"--nproc-per-node={per_node}", "-m", "volano"]
    return " ".join([*parts, *map(shlex.quote, words)])


def slurm_job(words: Sequence[str], num_nodes: int, per_node: int) -> str:
    """Returns a batch file for ``sbatch``: one task on each machine, which starts its ranks."""
    command = torchrun_command(words, num_nodes, per_node, address='"$first"')
    return f"""#!/bin/bash
#SBATCH --job-name=volano
#SBATCH --nodes={num_nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={per_node}
#SBATCH --exclusive
#SBATCH --signal=TERM@120

# TERM comes two minutes before the end: the run is saved, and `volano resume` goes on.
export first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun bash -c '{command.replace("'", chr(39) + chr(92) + chr(39) + chr(39))}'
"""


def ray_job(words: Sequence[str], num_nodes: int, per_node: int) -> str:
    """Returns a program for ``ray job submit``: a group of whole machines, each of which starts its
    ranks."""
    command = torchrun_command(words, num_nodes, per_node, address="{address}")
    return f'''"""ray job submit --working-dir . -- python volano_job.py"""

import subprocess

import ray
from ray.util import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

COMMAND = {command!r}


@ray.remote(num_cpus=1, num_gpus={per_node})
def address():
    return ray.util.get_node_ip_address()


@ray.remote(num_cpus=1, num_gpus={per_node})
def train(first):
    subprocess.run(COMMAND.replace("{{address}}", first), shell=True, check=True)


ray.init()
group = placement_group([{{"CPU": 1, "GPU": {per_node}}}] * {num_nodes}, strategy="STRICT_SPREAD")
ray.get(group.ready())
places = [
    PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number)
    for number in range({num_nodes})
]
first = ray.get(address.options(scheduling_strategy=places[0]).remote())
ray.get([train.options(scheduling_strategy=place).remote(first) for place in places])
'''


JOBS: dict[str, Callable[[Sequence[str], int, int], str]] = {"slurm": slurm_job, "ray": ray_job}


def job_file(kind: str, words: Sequence[str], num_nodes: int, per_node: int) -> str:
    """Returns the file of a job for a scheduler of :data:`JOBS`.

    Raises:
        UsageError: there is no such scheduler here.
    """
    if kind not in JOBS:
        raise UsageError(f"`job` must be one of {', '.join(JOBS)}", got=repr(kind))
    return JOBS[kind](words, num_nodes, per_node)
