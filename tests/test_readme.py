"""What the documents show works."""

import re
import subprocess
from pathlib import Path

import pytest
import typer

from volano.apps.kinds import APPLICATIONS
from volano.apps.options import table_of
from volano.cli import commands
from volano.cli.main import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(ROOT / "README.md", "python")
    exec(compile(code, "README.md", "exec"), {})
    loss, path = capsys.readouterr().out.split()
    assert float(loss) < 1.0
    assert (tmp_path / path / "model.safetensors").exists()


def test_the_commands_of_the_documents_exist():
    commands.register(app)
    known = {command.name for command in (*app.registered_commands, *app.registered_groups)}
    named = set()
    for path in DOCUMENTS:
        inline = re.findall(r"`(volano [^`]+)`", path.read_text(encoding="utf-8"))
        for block in [*blocks(path, "sh"), *inline]:
            named |= set(re.findall(r"(?:^|/|&& )volano ([a-z]+)", block, re.MULTILINE))
    assert {"train", "resume", "eval", "predict", "export", "doctor"} <= named
    assert named <= known


def flags_of(command, name=None) -> set[str]:
    """The flags of a command, and of those below it."""
    found = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
    names = command.list_commands(None) if hasattr(command, "list_commands") else ()
    if hasattr(command, "named"):  # whose options depend on what is named
        names = (*names, "", *(["train.py"] if name == "explain" else []))
    return found.union(*(flags_of(command.get_command(None, one), one) for one in names))


def test_the_flags_of_the_documents_exist():
    commands.register(app)
    known = flags_of(typer.main.get_command(app)) | {"--target", "--help"}  # of an example's own
    named = set()
    for path in DOCUMENTS:
        inline = re.findall(r"`(volano [^`]+)`", path.read_text(encoding="utf-8"))
        lines = [
            line for block in blocks(path, "sh") + blocks(path, "") for line in block.split("\n")
        ]
        for line in (*lines, *inline):
            ours = re.search(r"(?:^|/|&& |-m )volano (.*)", line)
            # What follows a script is the script's own, and a comment is nobody's.
            words = [] if ours is None else re.split(r"\.py(?!:)|#", ours[1])[0].split()
            named |= {word.partition("=")[0] for word in words if word.startswith("--")}
    assert {"--minutes", "--nproc", "--find", "--scratch", "--resume", "--no-race"} <= named
    assert sorted(named - known) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("http") or (path.parent / target).exists(), target


def test_the_map_of_the_house_has_every_room():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## The house")[2]
    named = set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    rooms = {
        f"{one.name}/" if one.is_dir() else one.name for one in (ROOT / "src/volano").iterdir()
    }
    assert named == rooms - {"__init__.py", "__main__.py", "__pycache__/", "py.typed"}


def test_ci_finds_both_commands():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    function = re.search(r"^readme_command\(\) \{.*?^\}", script, re.DOTALL | re.MULTILINE)
    assert function is not None
    for name, part in (("try", "volano train image"), ("test", "pytest")):
        result = subprocess.run(
            ["bash", "-c", f"{function[0]}\nreadme_command {name}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert part in result.stdout


def test_the_changelog_has_the_version_to_come():
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", APPLICATIONS)
def test_the_guides_tables_are_those_of_the_declarations(kind):
    assert (
        f"<!-- options: {kind} -->\n**{kind}**\n\n{table_of(APPLICATIONS[kind])}"
        in (ROOT / "docs/guide.md").read_text()
    )
