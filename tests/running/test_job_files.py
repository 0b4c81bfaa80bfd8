"""The commands of a training on several machines."""

import ast
import shlex
import shutil
import subprocess

import pytest

from volano.errors import UsageError
from volano.running.job_files import job_file, torchrun_command

WORDS = ["train", "text", "./my books", "--sharding", "full"]


def test_one_machine_needs_no_meeting_place():
    words = shlex.split(torchrun_command(WORDS, 1, 8))
    assert words[:5] == ["torchrun", "--standalone", "--nproc-per-node=8", "-m", "volano"]
    assert words[5:] == WORDS


def test_torch_understands_the_command():
    from torch.distributed.run import get_args_parser

    words = shlex.split(torchrun_command(WORDS, 8, 4, address="first"))
    options = get_args_parser().parse_args(words[1:])
    assert (options.nnodes, options.nproc_per_node) == ("8", "4")
    assert (options.rdzv_backend, options.rdzv_endpoint) == ("c10d", "first:29500")
    assert options.module
    assert [options.training_script, *options.training_script_args] == ["volano", *WORDS]


def test_a_job_of_slurm_is_a_script(tmp_path):
    text = job_file("slurm", WORDS, 8, 4)
    assert "#SBATCH --nodes=8\n" in text
    assert "#SBATCH --gpus-per-node=4\n" in text
    tool = shutil.which("bash")
    if tool is None:
        pytest.skip("needs bash")
    # What srun runs is the command, with the first machine's name and the path in one piece.
    (tmp_path / "scontrol").write_text("#!/bin/bash\necho one; echo two\n")
    (tmp_path / "srun").write_text('#!/bin/bash\nexec "$@"\n')
    (tmp_path / "torchrun").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    for path in tmp_path.iterdir():
        path.chmod(0o755)
    done = subprocess.run(
        [tool, "-c", text], capture_output=True, text=True, check=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout.splitlines()[2] == "--rdzv-endpoint=one:29500"
    assert done.stdout.splitlines()[-len(WORDS) :] == WORDS


def test_a_job_of_ray_is_a_program():
    text = job_file("ray", WORDS, 8, 4)
    tree = ast.parse(text)
    command = next(
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "COMMAND"
    )
    assert command == torchrun_command(WORDS, 8, 4, address="{address}")
    assert '"GPU": 4}] * 8' in text


def test_another_scheduler_is_refused():
    with pytest.raises(UsageError, match="must be one of slurm, ray; got 'pbs'"):
        job_file("pbs", WORDS, 1, 1)
