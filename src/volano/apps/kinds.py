"""The applications: by name, by reference to a person's own, and by a run's folder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from volano.apps.image.options import ImageOptions
from volano.apps.options import Options
from volano.apps.text.classify.options import ClassifyOptions
from volano.apps.text.options import TextOptions
from volano.apps.video.classify.options import ClipClassifyOptions
from volano.apps.video.options import VideoOptions
from volano.errors import UsageError
from volano.running.trust import check_trusted, name_code, trust_folder

if TYPE_CHECKING:
    from volano.apps.application import Application, TrainedModel
    from volano.record.run_folder import RunFolder
    from volano.task import Task

# Options of each, without torch: the command line is made of them.
APPLICATIONS: dict[str, type[Options]] = {
    "image": ImageOptions,
    "text": TextOptions,
    "video": VideoOptions,
}
CLASSIFY, CAUSAL, CLASSIFY_CLIPS = "classify", "causal", "classify-clips"
# What is trained for another goal than the application's first.
_BY_GOAL = {
    ("text", "classes"): CLASSIFY,
    ("text", CAUSAL): CAUSAL,
    ("video", "classes"): CLASSIFY_CLIPS,
}


def is_application(name: Any) -> bool:
    """Returns whether a name is that of an application."""
    return isinstance(name, str) and name in APPLICATIONS


def application_class(kind: str) -> type[Application]:
    """Returns the application of a kind: a name of :data:`APPLICATIONS`, ``"classify"``,
    ``"causal"``, ``"classify-clips"``, or ``module:Class``.

    Raises:
        UsageError: there is no such application.
    """
    if kind == "image":
        from volano.apps.image.application import ImageApplication

        return ImageApplication
    if kind == "text":
        from volano.apps.text.application import TextApplication

        return TextApplication
    if kind == CLASSIFY:
        from volano.apps.text.classify.application import ClassifyApplication

        return ClassifyApplication
    if kind == CAUSAL:
        from volano.apps.text.causal.application import CausalApplication

        return CausalApplication
    if kind == CLASSIFY_CLIPS:
        from volano.apps.video.classify.application import ClipClassifyApplication

        return ClipClassifyApplication
    if kind == "video":
        from volano.apps.video.application import VideoApplication

        return VideoApplication
    own = own_application(kind) if ":" in str(kind) else None
    if own is not None:
        return own
    raise UsageError(
        "An application must be one that this version knows, or a subclass of volano.Application",
        got=repr(kind),
        remedy=f"Say {', '.join(APPLICATIONS)}, or module:Class",
    )


def own_application(reference: str) -> type[Application] | None:
    """Returns the person's own application that ``module:Class`` names; None if it names something
    else.

    Raises:
        UsageError: it cannot be imported.
    """
    from volano.apps.application import Application
    from volano.running.references import load_reference

    value = load_reference(reference)
    return value if isinstance(value, type) and issubclass(value, Application) else None


def reference_to(application: type[Application]) -> str:
    """Returns how another process can name a person's own application."""
    module = application.__module__
    if module.startswith("volano."):
        return application.kind
    if module == "__main__":
        module = inspect.getsourcefile(application) or module
    return f"{module}:{application.__qualname__}"


def choose_application(
    kind: str | type[Application], given: Mapping[str, Any]
) -> tuple[type[Application], Any]:
    """Returns the application of a kind (or the class itself), and its options with the values that
    were given.

    Raises:
        UsageError: there is no such application, it has no such option, or a value cannot be.
    """
    name_code(kind if isinstance(kind, str) else reference_to(kind), *given.values())
    if is_application(kind):
        name, options = options_for(str(kind), given)  # before torch is loaded
        return application_class(name), options
    application = application_class(kind) if isinstance(kind, str) else kind
    given = {name: value for name, value in given.items() if value is not None}
    return application, application.options_type.of(given, f"the application {application.kind}")


def options_for(kind: str, given: Mapping[str, Any]) -> tuple[str, Options]:
    """Returns the name under which :func:`application_class` knows one of :data:`APPLICATIONS`, and
    its options with the values that were given. Loads no torch.

    Raises:
        UsageError: it has no such option, or a value cannot be.
    """
    given = {name: value for name, value in given.items() if value is not None}
    is_labelled = given.keys() & {"target", "target_columns"}  # which say so already
    if kind == "text" and (given.pop("classify", False) or is_labelled):
        return CLASSIFY, ClassifyOptions.of(given, "the text application with `classify`")
    if kind == "text" and given.get("from_") is not None:
        return CAUSAL, TextOptions.of(given, "the text application with `from_`")
    if kind == "video" and given.pop("classify", False):
        return CLASSIFY_CLIPS, ClipClassifyOptions.of(
            given, "the video application with `classify`"
        )
    return kind, APPLICATIONS[kind].of(given, f"the {kind} application")


def application_of_run(folder: RunFolder, *, trust: bool = False) -> type[Application] | None:
    """Returns the application of a run; None for a task of a person's own.

    Args:
        folder: the run's folder, which a stranger may have written.
        trust: whether code that it names may be imported, whoever has named it.

    Raises:
        UsageError: it names an application that the person has not named, and is not trusted.
    """
    source = folder.read_json("run.json").get("source") or {}
    kind = source.get("kind", "python")
    if kind in ("python", "reference", "trial"):
        return None
    if ":" in str(kind) and not trust:
        check_trusted(kind, folder.path)
    return application_class(_BY_GOAL.get((str(kind), str(source.get("goal"))), str(kind)))


def task_of(folder: RunFolder) -> Task:
    """Returns the task of an application's run, made again from its folder."""
    application = application_of_run(folder)
    assert application is not None
    return application.from_run(folder).task_of_run()


def load(run: RunFolder, device: str | None = None, *, trust: bool = False) -> TrainedModel:
    """Loads what the run of an application has trained. Whether code that its folder names is
    trusted holds for what is done with it later, too.

    Raises:
        UsageError: it is the run of a task of a person's own, or names code that the person has
            neither named nor trusts.
        CheckpointError: it has not ended.
    """
    from volano.running.checks import check_begun, check_ended

    check_begun(run)
    trust_folder(run.path, trust)
    application = application_of_run(run, trust=trust)
    if application is None:
        raise UsageError(
            "A run must be of an application to be used by its folder",
            got=f"{run.path}, the run of a task of your own",
            remedy=f"Load its weights, a state_dict, from {run.path / 'model.safetensors'}",
        )
    check_ended(run)
    with run.as_written():
        return application.load(run, device)
