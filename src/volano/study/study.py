"""A study as a value: what its folder says, its best trial, and Optuna's study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volano.errors import ExploreError
from volano.record.study import BestTrial, StudyRecord, TrialResult, trials_of
from volano.record.study_folder import PACKS, STUDY, TRIALS, StudyFolder

if TYPE_CHECKING:
    import optuna


class Study(StudyRecord):
    """A study that has ended or stopped, or one that another process works on, as its folder says.

    Args:
        folder: the folder of the study, opened.
        optuna_study: the Optuna study, if it is at hand.
        build: the function that made its tasks, if it is at hand.
        is_tolerant: whether what an event of a trial lacks is left open, as in a report, rather
            than an error.

    Raises:
        CheckpointError: the folder is damaged.
    """

    def __init__(
        self, folder: StudyFolder, *, optuna_study: optuna.Study | None = None,
        build: Callable[[Any], Any] | None = None, is_tolerant: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            folder=folder.path,
            facts=folder.read_json(STUDY),
            trials=trials_of(folder.read_lines(TRIALS), is_tolerant=is_tolerant),
            packs=tuple(folder.read_lines(PACKS)),
        )
        self.build, self._optuna = build, optuna_study

    @classmethod
    def open(cls, folder: str | Path, *, is_tolerant: bool = False) -> Study:
        """Returns the study in a folder.

        Raises:
            UsageError: there is none.
            CheckpointError: it is of another schema version, or damaged.
        """
        return cls(StudyFolder.open(folder, is_tolerant=is_tolerant), is_tolerant=is_tolerant)

    def __repr__(self) -> str:
        return f"Study({str(self.folder)!r}, {self.status}, {len(self.trials)} trials)"

    @property
    def reason(self) -> str | None:
        """The reason for which it stopped or failed, or None."""
        return self.facts.get("reason")

    @property
    def best(self) -> BestTrial:
        """The best trial.

        Raises:
            ExploreError: no trial has shown a number yet.
        """
        best = self.find_best()
        if best is None:
            raise ExploreError(
                "A study's best trial must have a value that is a number",
                got=f"none in {self.folder}",
            )
        return best

    @property
    def optuna(self) -> optuna.Study:
        """The Optuna study, for its plots and its dashboard.

        Raises:
            CheckpointError: its storage cannot be opened.
        """
        if self._optuna is None:
            # Optuna takes a second to load; most readers need none.
            from volano.study.optuna_storage import load_optuna

            self._optuna = load_optuna(
                self.folder, self.facts.get("name", ""), self.facts.get("storage")
            )
        return self._optuna

    def path(self, name: str) -> Path:
        """Returns where a file of the study's folder lies, for example ``"report.html"``."""
        return self.folder / name

    def trial(self, number: int) -> TrialResult:
        """Returns the trial of a number.

        Raises:
            ExploreError: the study has none of that number.
        """
        for trial in self.trials:
            if trial.number == number:
                return trial
        raise ExploreError(
            "A trial must be named by its number",
            got=number,
            remedy=f"The study has {len(self.trials)}",
        )
