"""What keeps the house readable at speed: sizes of folders, names, imports, a test for each
module."""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter, defaultdict
from pathlib import Path

import volano

SOURCE = Path(volano.__file__).parent
ROOT = Path(__file__).parents[1]
MODULES = sorted(SOURCE.rglob("*.py"))


@functools.cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def test_a_folder_can_be_read_at_a_glance():
    counts = {
        folder: len(list(folder.glob("*.py")))
        for folder in [SOURCE, *SOURCE.rglob("*")]
        if folder.is_dir()
    }
    assert {str(folder): count for folder, count in counts.items() if count > 16} == {}


def test_class_names_are_unique():
    homes = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef) and node.col_offset == 0:
                homes[node.name].append(str(path.relative_to(SOURCE)))
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


# Public constants that stand in several modules: the same kind of thing in rooms that mirror each
# other. A class and a type's other name are looked at together.
_OF_MIRRORED_ROOMS = {
    "FLIPS", "FORM", "HELP", "MOST_EPOCHS", "MOST_FINE_TUNING_EPOCHS", "SCHEMA_VERSION",
    "STEPS_OF_WHOLE_BATCHES", "TUNES",
}  # fmt: skip


def test_a_public_constant_means_one_thing():
    homes = defaultdict(list)
    for path in MODULES:
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(str(path.relative_to(SOURCE)))
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for name in (one for target in targets for one in ast.walk(target)):
                    if isinstance(name, ast.Name) and not name.id.startswith("_"):
                        homes[name.id].append(str(path.relative_to(SOURCE)))
    several = {name for name, where in homes.items() if len(where) > 1 and name != "aten"}
    assert several == _OF_MIRRORED_ROOMS


# Files of one name: an application's rooms, a verb's, what a script has as a task has it, a part of
# a report, and what is shown or recorded of a thing next to the thing.
_MIRRORED_FILES = {
    "application", "augment", "bench", "begin", "candidates", "cluster", "explain", "explanation",
    "explore", "export", "figures", "fit", "float64", "format", "generate", "guard", "model_spec",
    "network", "objective", "observe", "options", "page", "pictures", "plan", "progress", "race",
    "recipe", "run", "scores", "splits", "study", "train", "training", "use",
}  # fmt: skip


def test_a_file_name_means_one_thing():
    counts = Counter(path.stem for path in MODULES if path.name != "__init__.py")
    assert {name for name, count in counts.items() if count > 1} == _MIRRORED_FILES


def test_what_is_imported_is_computed_in_the_door_and_for_references_alone():
    computed = {
        str(path.relative_to(SOURCE))
        for path in MODULES
        if "import_module(" in path.read_text(encoding="utf-8")
    }
    assert computed == {"__init__.py", "running/references.py"}


# Attributes of torch's and Optuna's objects that are private to them.
_PRIVATE = {
    "_all_grids", "_backend", "_backward_hooks", "_base", "_boxed_call", "_buffers", "_cdata",
    "_indices", "_opname", "_optimizer_step_post_hooks", "_optimizer_step_pre_hooks",
    "_overloadpacket", "_parameters", "_post_accumulate_grad_hooks", "_schema", "_sequence_nr",
    "_trial_id", "_values", "_version",
}  # fmt: skip
_THEIR_HOMES = {"device/torch_private.py", "study/optuna_storage.py"}


def test_private_names_of_torch_and_optuna_have_one_home():
    """But for operators of aten: their names are as stable with an underscore as without."""
    found = {
        str(path.relative_to(SOURCE)): names
        for path in MODULES
        if (names := sorted(_private_names(parsed(path))))
    }
    assert {path: names for path, names in found.items() if path not in _THEIR_HOMES} == {}


def _private_names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            module = getattr(node, "module", None) or ""
            names = [f"{module}.{name.name}".strip(".") for name in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
            if node.attr in _PRIVATE and names[0] not in (f"self.{node.attr}", f"cls.{node.attr}"):
                yield names[0]
        else:
            is_getattr = isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "getattr",
                "setattr",
                "hasattr",
            )
            if is_getattr and getattr(node.args[1], "value", None) in _PRIVATE:
                yield ast.unparse(node)
            continue
        for name in filter(re.compile(r"[\w.]+").fullmatch, names):
            first, *others = name.split(".")
            is_theirs = first in ("torch", "optuna", "functorch", "nn") and others[:2] != [
                "ops",
                "aten",
            ]
            if is_theirs and any(
                part.startswith("_") and not part.startswith("__") for part in others
            ):
                yield name


# The guide's tables are held against what it returns.
_USED_BY_TESTS = {"apps/options.py: table_of"}


def test_public_functions_and_classes_have_a_use():
    """In code (a folder's ``__init__`` that hands them on is none), on a page, or in an example."""
    known = set()
    for path in MODULES:
        if path.name != "__init__.py" or path.parent == SOURCE:
            known |= set(_names(parsed(path)))
    pages = [page for page in (ROOT / "docs").rglob("*.md") if page.name != "log.md"]
    for page in [
        ROOT / "README.md",
        *pages,
        *(ROOT / "examples").rglob("*.py"),
        *(ROOT / "benchmarks").rglob("*.py"),
    ]:
        known |= set(re.findall(r"\w+", page.read_text(encoding="utf-8")))
    unused = {
        f"{path.relative_to(SOURCE)}: {node.name}"
        for path in MODULES
        for node in parsed(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and node.name not in known
    }
    assert unused - _USED_BY_TESTS == set()


def _names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.isidentifier()
        ):
            yield node.value  # the door's table


def test_every_folder_is_a_package_with_a_sentence():
    for folder in SOURCE.rglob("*"):
        if folder.is_dir() and list(folder.glob("*.py")):
            text = (folder / "__init__.py").read_text(encoding="utf-8")
            assert ast.get_docstring(ast.parse(text)), folder


def test_files_that_are_named_in_text_exist():
    """In docstrings, comments and pages: ``planner/time/roofline.py``. The log tells of what was,
    and is left out."""
    tops = "|".join(
        sorted(
            folder.name
            for folder in SOURCE.iterdir()
            if folder.is_dir() and folder.name != "__pycache__"
        )
    )
    named = re.compile(rf"(?<![\w/.])(?:src/volano/)?((?:{tops})/[a-z_0-9/]+\.py)")
    pages = [page for page in (ROOT / "docs").rglob("*.md") if page.name != "log.md"]
    for path in [*MODULES, *pages, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for name in named.findall(path.read_text(encoding="utf-8")):
            assert (SOURCE / name).is_file(), f"{path}: {name}"


# Modules of more lines than these have a test file of their own: tests/<path>/test_<module>.py.
LINES_OF_ITS_OWN = 40
MOST_TESTED_ELSEWHERE = 15

# Those that have none: where they are tested instead, and why there.
TESTED_ELSEWHERE = {
    # A door hands names on: which, one test says of all of them.
    "__init__.py": "test_package.py",
    "data/__init__.py": "test_package.py",
    "data/sources/__init__.py": "test_package.py",
    "training/__init__.py": "test_package.py",
    # Declarations without code, which one test takes together: checks, JSON, command line, table.
    "apps/image/options.py": "apps/test_options.py",
    "apps/text/options.py": "apps/test_options.py",
    "apps/video/options.py": "apps/test_options.py",
    # The main program of a rank, which runs as a process of its own.
    "running/rank_main.py": "cli/test_ranks.py",
    # Values without a method, looked at where they are made and where they are answered.
    "plan/prediction.py": "plan/test_explanation.py",
    "study/workers/messages.py": "study/workers/test_worker.py",
    "task/__init__.py": "task/test_task.py",
    "task/callables.py": "task/test_describe.py",
}


def test_every_module_of_some_size_has_its_tests():
    tests, sizes, has_its_own = ROOT / "tests", {}, set()
    for path in MODULES:
        name = path.relative_to(SOURCE)
        sizes[name.as_posix()] = len(path.read_text(encoding="utf-8").splitlines())
        if (tests / name.parent / f"test_{name.name}").is_file():
            has_its_own.add(name.as_posix())
    large = {name for name, size in sizes.items() if size > LINES_OF_ITS_OWN}
    # A module that is gone, that is small, or that has its own tests by now is listed no more.
    assert large - has_its_own == set(TESTED_ELSEWHERE)
    assert len(TESTED_ELSEWHERE) <= MOST_TESTED_ELSEWHERE
    assert {place for place in TESTED_ELSEWHERE.values() if not (tests / place).is_file()} == set()


# Folders whose texts are not in plain English yet.
def _with_plain_texts():
    for path in MODULES:
        yield path.relative_to(SOURCE).as_posix(), parsed(path)


# Docstrings that are the help of a command say what it does for a person, as `git --help` does; the
# door's begins with the name.
_COMMANDS = {
    "__init__.py: Volano",
    "cli/commands.py: export",
    "cli/commands.py: report",
    "cli/main.py: options",
    "cli/plans.py: clear_plans",
    "cli/plans.py: list_plans",
    "cli/train.py: resume",
}
# They end in "s" and are no verbs.
_NOUNS = {
    "As", "Bits", "Candidates", "Clips", "Columns", "Dependencies", "Examples", "Figures",
    "Files", "Groups", "Ids", "Images", "Its", "Keys", "Limits", "Lines", "Logits", "Loss",
    "Modules", "Numbers", "Operations", "Options", "Pages", "Parameters", "Parts", "Pieces",
    "Pixels", "Rates", "Rows", "Seconds", "Settings", "Shapes", "Tensors", "Texts", "These",
    "This", "Those", "Tokens", "Trials", "Units", "Values", "Weights", "Whose", "Words",
    "Workers",
}  # fmt: skip


def test_docstrings_begin_with_a_verb_or_an_article():
    """In the third person, "Returns ...", or with "The ...", so that each can be read at speed."""
    found = set()
    for path, tree in _with_plain_texts():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text, name = ast.get_docstring(node), getattr(node, "name", "Volano")
                if text and not _has_head(text) and f"{path}: {name}" not in _COMMANDS:
                    found.add(f"{path}: {name}: {text[:40]}")
    assert found == set()


def _has_head(text):
    first = text.split()[0].rstrip(",:;.")
    is_verb = re.fullmatch("[A-Z][a-z]*(-[a-z]+)?s", first) is not None and first not in _NOUNS
    return first in ("The", "A", "An") or is_verb


def test_what_is_a_head_of_a_docstring():
    assert all(map(_has_head, ("Returns it.", "The sum.", "A run: its parts.", "An end.")))
    assert not any(
        map(
            _has_head, ("Of a run.", "Whether it is.", "Those.", "Trials of it.", "Return it.", "x")
        )
    )


# Flags of other programs, and whole commands to give next, by the files that hold them.
_FLAGS = {
    "report/verdict.py": {"--epochs", "--minutes"},  # of `volano train`, for longer
    "apps/train.py": {"--from", "--trial"},  # of `volano train`, to train a trial for longer
    "apps/image/application.py": {"--to"},  # of `volano export`, shown after a run
    "apps/text/application.py": {"--prompt"},  # of `volano generate`
    "apps/text/causal/application.py": {"--prompt", "--to"},  # likewise
    "apps/shared_options.py": {"--from"},  # declared: not the field's own name
    "pretrained/network_references.py": {"--from"},  # of `volano train`, for a study
    "apps/video/application.py": {"--clips"},  # of `volano generate`
    # Of `volano train` and `volano explore`, for a study that is no run.
    "record/files.py": {"--from", "--resume"},
    "device/machine.py": {"--to"},  # of `volano export`, which needs a package
    "apps/video/options.py": {"--class", "--frames"},  # declared: not the field's own name
    "apps/video/classify/application.py": {"--to"},  # of `volano export`, shown after a run
    "script/search/find.py": {"--find", "--scratch"},  # of `volano run` and `volano explain`
    "script/remembered.py": {"--plan", "--to"},  # of `volano run`, and of jupyter
    "script/run.py": {"--plan", "--no-plan"},  # of `volano run`, which is told by them
    "study/optuna_storage.py": {"--storage"},  # of `optuna storage upgrade`
    "study/workers/ray_actors.py": {"--head"},  # of `ray start`
    "running/job_files.py": {  # of torchrun, of `sbatch`, of `ray job submit`
        "--standalone",
        "--nnodes",
        "--rdzv-backend",
        "--rdzv-endpoint",
        "--rdzv-id",
        "--nproc-per-node",
        "--job-name",
        "--nodes",
        "--ntasks-per-node",
        "--gpus-per-node",
        "--exclusive",
        "--signal",
        "--working-dir",
    },
}


def test_libraries_name_parameters_and_not_flags():
    """A Python user has no flags; the command line writes `image_size` as its flag by itself, see
    cli/main.py."""
    found = {}
    for path, tree in _with_plain_texts():
        if not path.startswith("cli/"):
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", node.value):
                        found.setdefault(path, set()).add(flag)
    assert found == _FLAGS


def test_doubles_are_made_on_the_host():
    """Some accelerators (MPS, Intel's) have no 64-bit numbers. The guard's reference, which falls
    back to fp32 there, is the one exception."""
    found = [
        f"{path.relative_to(SOURCE)}:{number}"
        for path in SOURCE.rglob("*.py")
        if path.name != "float64.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"(?<!\.cpu\(\))\.double\(\)", line)
    ]
    assert found == []
