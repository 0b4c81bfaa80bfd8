"""Runs a benchmark with an earlier commit's source and with this one's, in turn.

    python benchmarks/old_and_new.py COMMIT --rounds 3 -- benchmarks/never_slower.py blocks 60 mlp
    python benchmarks/old_and_new.py COMMIT -- -c 'from overhead import *; compare("x", 99, 9, 9)'

What follows ``--`` is given to Python in a checkout of each side, so that each side runs its own
copy of the benchmark; both use the packages of the interpreter that runs this script. Prints the
last lines of each run, the sides beside one another.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SECONDS = 900  # at most, of one run


def run(tree: Path, command: list[str], lines: int) -> str:
    """Returns the last ``lines`` lines that the command prints in the tree, and its seconds."""
    paths = os.pathsep.join(str(tree / folder) for folder in ("src", "benchmarks"))
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    printed = done.stdout.strip().splitlines()[-lines:]
    end = f"({time.perf_counter() - began:.1f} s, exit code {done.returncode})"
    return "\n".join([*(f"    {line}" for line in printed), f"    {end}"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lines", type=int, default=8)
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    git = ["git", "-C", str(HERE), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "old"
        subprocess.run([*git, "add", "--quiet", "--detach", str(old), given.commit], check=True)
        try:
            for number in range(1, given.rounds + 1):
                for name, tree in (("old", old), ("new", HERE)):
                    print(f"round {number}, {name}", flush=True)
                    print(run(tree, given.command, given.lines), flush=True)
        finally:
            subprocess.run([*git, "remove", "--force", str(old)], check=True)


if __name__ == "__main__":
    main()
