"""Makes Tasks from labelled texts: two kinds of classifier, the bag of n-grams and the language
model's head."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from volano.apps.application import Application
from volano.apps.options import Options
from volano.apps.shared_options import batch_in_words, columns_of
from volano.apps.targets.find_target import goal_of_target, target_of_data
from volano.apps.targets.target import Target
from volano.apps.text.classify.bag import (
    BagClassifier,
    BagDataset,
    BagObjective,
    HashedTexts,
    bag_optimizer,
    choose_buckets,
    hash_texts,
    inverse_frequencies,
)
from volano.apps.text.classify.begin import encoder_of
from volano.apps.text.classify.classifier import (
    ClassifierObjective,
    token_arrays,
    token_rows,
)
from volano.apps.text.classify.encoder import (
    EncoderObjective,
    EncoderRecipe,
    choose_recipe,
    described_encoder,
    encoder_batch,
    encoder_features,
)
from volano.apps.text.classify.model_spec import BAG, DECODER_HEAD, ENCODER, ClassesSpec
from volano.apps.text.classify.options import ClassifyOptions
from volano.apps.text.classify.read_head import ReadHead
from volano.apps.text.classify.splits import (
    held_back,
    read_again,
    some_held_back,
    split_texts,
    together,
)
from volano.apps.text.model_spec import CLASSES_GOAL as GOAL
from volano.data import Arrays, Fault, fault_notices
from volano.data.sources import (
    CLASSES,
    SPLITS_NAME,
    TEST,
    TRAIN,
    VALID,
    LabelledTexts,
    SplitRecord,
    TargetFormat,
    check_trained,
    contradictions,
    copies_of_training,
    member_rows,
    read_labelled_texts,
)
from volano.device import Device
from volano.errors import UsageError
from volano.pretrained.frozen_features import FineTuningStart
from volano.pretrained.linear_probe import PROBE, solve_probe
from volano.pretrained.network_references import HEAD
from volano.pretrained.text_encoders import TOKENIZER, TextEncoder, TokenTexts, TokenTextsDataset
from volano.pretrained.tuning import tuning_fields
from volano.record.files import write_bytes
from volano.task import Task, linear
from volano.training import RunFolder, save_tensors

_BAG_EPOCHS = 10


@dataclass(frozen=True, kw_only=True)
class ClassifyTraining(Application):
    """The labelled texts, split, and the two kinds of classifier to train on them.

    Attributes:
        train: all to train on.
        choice: rows of ``train`` held back to choose by, int64; see ``held_back``.
        test: the texts of the final figures.
        kept: the one of the two that is trained on everything, and its accuracy with that of the
            other; None before the choice.
        head: the decoder that has read the texts, if it is kept.
        encoder: the pretrained encoder that ``options.from_`` names, instead of the two.
        start: the solved head of its features; None: solved when it is needed.
        is_compared: whether it is for the trials of a study, which ``choice`` compares.
    """

    kind: ClassVar[str] = "text"
    options_type: ClassVar[type[Options]] = ClassifyOptions
    default_minutes: ClassVar[float] = 1.0
    final_metric: ClassVar[str] = "num_test"
    data_name: ClassVar[str] = "texts"

    options: ClassifyOptions
    train: LabelledTexts
    choice: np.ndarray
    test: LabelledTexts
    is_held_out: bool
    origin: str
    faults: tuple[Fault, ...]
    notices: tuple[str, ...]
    kept: ClassesSpec | None = None
    head: ReadHead | None = None
    encoder: TextEncoder | None = None
    start: FineTuningStart | None = field(default=None, repr=False)
    is_compared: bool = False

    @classmethod
    def read(cls, options: ClassifyOptions, scratch: Path | None = None) -> Self:  # noqa: ARG003
        """Reads labelled texts, and splits them if the source does not.

        Texts of a split val next to train and test are the ones to choose by, and trained on after
        the choice like all others.
        """
        assert options.path is not None
        encoder, columns = encoder_of(options.from_), columns_of(options.target_columns)
        wanted = TargetFormat(kind=options.target, columns=columns)
        sets = read_labelled_texts(Path(options.path), target=wanted)
        train, test = split_texts(sets, options)
        parts = {TRAIN: train, **({} if sets.valid is None else {VALID: sets.valid}), TEST: test}
        target, is_held_out = target_of_data(train, columns), sets.test is None
        num_left = len(sets.train) - len(train) - len(test) if is_held_out else 0
        notices = [
            target.data_in_words("texts", parts, is_held_out=is_held_out),
            *sets.notices,
            *([f"left out: {num_left:,} exact copies of held-out texts"] if num_left else []),
            *contradictions(members := train.members(), "texts"),
            *copies_of_training(members, test.members(), "texts"),
        ]
        train, choice, said = held_back(train, sets.valid, options)
        notices += said
        num = len(train) - (len(choice) if options.keep == "best" else 0)
        notices += batch_in_words(options.batch_size, num, "texts")
        check_trained(train.kind, train.classes, train.labels, "texts")
        notices += fault_notices(sets.faults)
        return cls(
            options=dataclasses.replace(options, target=train.kind), train=train, choice=choice,
            test=test, is_held_out=is_held_out, origin=sets.origin, faults=sets.faults,
            notices=tuple(notices), encoder=encoder,
        )  # fmt: skip

    @functools.cached_property
    def fit_rows(self) -> np.ndarray:
        """Returns the rows of ``train`` that are not in ``choice``, int64."""
        return np.setdiff1d(np.arange(len(self.train)), self.choice)

    @functools.cached_property
    def target(self) -> Target:
        """The target: what is predicted of a text."""
        return target_of_data(self.train, columns_of(self.options.target_columns))

    @functools.cached_property
    def wanted(self) -> np.ndarray:
        """The values that outputs for the training texts are held against."""
        return self.target.wanted(torch.from_numpy(self.train.labels)).numpy()

    @functools.cached_property
    def num_buckets(self) -> int:
        """The number of buckets of the bag."""
        return choose_buckets(len(self.train.classes))

    @functools.cached_property
    def hashed(self) -> HashedTexts:
        """The training texts as n-grams."""
        return hash_texts(self.train.texts, self.num_buckets)

    @functools.cached_property
    def tokens(self) -> TokenTexts:
        """The training texts as the encoder's tokens."""
        assert self.encoder is not None
        return self.encoder.tokenizer.encode(self.train.texts)

    @functools.cached_property
    def begun(self) -> FineTuningStart:
        """The solved head of the encoder's features, found now if it was not yet."""
        return self.start or self.begin(Device("cpu"))

    def solved_on(self, device: Device) -> Self:
        """Implements :meth:`Application.solved_on`."""
        if self.encoder is None or self.start is not None:
            return self
        return dataclasses.replace(self, start=self.begin(device))

    def begin(self, device: Device) -> FineTuningStart:
        """Solves a head of the frozen features of :attr:`encoder_rows`, of some if they are
        many."""
        assert self.encoder is not None
        rows = self.encoder_rows
        rows = rows[self.target.rows_to_solve(self.train.labels[rows])]
        features, seconds = encoder_features(self.encoder, self.tokens, rows, device)
        wanted, solver = torch.from_numpy(self.wanted[rows]), self.target.head_solver()
        texts = [self.train.texts[row] for row in rows]
        probe = solve_probe(features, wanted, solver, seed=self.options.seed, keys=texts)
        return FineTuningStart(probe=probe, example_seconds=seconds)

    def encoder_task(self, num_steps: int, recipe: EncoderRecipe | None = None) -> Task:
        """The Task that fine-tunes the encoder on :attr:`encoder_rows`."""
        assert self.encoder is not None
        recipe = recipe or self.recipe_of(num_steps)
        data = self._dataset(self.encoder_rows)
        return Task(
            name="text",
            objective=self.target.objective(EncoderObjective()),
            data=data,
            valid=self._dataset(self.choice) if self.holds_back else None,
            collate=None if isinstance(data, Arrays) else TokenTextsDataset.collate,
            **tuning_fields(
                self.encoder, self.tune, self.begun.probe, len(self.train.classes), recipe.rates
            ),
            batch_size=min(len(data), recipe.batch_size),
            duration=f"{num_steps}st",
            evaluate_every=f"{max(1, -(-num_steps // 5))}st",
            seed=self.options.seed,
        )

    def _dataset(self, rows: np.ndarray) -> Arrays | TokenTextsDataset:
        """The texts at ``rows`` as the encoder takes them."""
        if self.is_compared and self.tune == HEAD:
            # All of one length, in tensors: what a frozen trunk gives of them is computed once for
            # all trials.
            wanted = torch.from_numpy(self.wanted[rows])
            return Arrays((*self.tokens.padded(rows), wanted))
        return TokenTextsDataset(self.tokens, rows, self.wanted)

    @property
    def tune(self) -> str:
        """The part of the encoder that is trained."""
        return self.options.tune or HEAD

    @property
    def holds_back(self) -> bool:
        """Returns whether weights or trials of an encoder are compared by ``choice``."""
        return self.options.keep == "best" or self.is_compared

    @property
    def encoder_rows(self) -> np.ndarray:
        """The rows that an encoder is trained on: all, or those by which nothing is compared."""
        return self.rows(everything=not self.holds_back)

    @property
    def batch_size(self) -> int:
        """The texts per step of the encoder."""
        num = len(self.encoder_rows)
        return min(num, self.options.batch_size or encoder_batch(num))

    def rows(self, *, everything: bool) -> np.ndarray:
        """Returns the rows that are trained on: all, or what is not held back."""
        return np.arange(len(self.train)) if everything else self.fit_rows

    def bag_task(self, *, everything: bool, num_steps: int | None = None) -> Task:
        """The Task of the bag; ``num_steps``: fewer than its ten epochs, if they take too long."""

        def bag_of(rows: np.ndarray) -> BagDataset:
            return BagDataset(self.hashed.select(rows), self.wanted[rows])

        rows = self.rows(everything=everything)
        idf = inverse_frequencies(self.hashed.select(rows), self.num_buckets)
        batch_size = min(256, max(1, len(rows) // 8))
        most = _BAG_EPOCHS * max(1, len(rows) // batch_size)
        is_whole = num_steps is None or num_steps == most
        duration = f"{_BAG_EPOCHS}ep" if is_whole else f"{num_steps}st"
        return Task(
            name="text",
            model=functools.partial(BagClassifier, self.num_buckets, len(self.train.classes), idf),
            objective=self.target.objective(BagObjective()),
            data=bag_of(rows),
            # Trained on everything, nothing is left to look at but the test set.
            valid=None if everything else bag_of(self.choice),
            collate=BagDataset.collate,
            optimizer=bag_optimizer(len(rows), self.target.rate),
            schedule=linear(),
            batch_size=batch_size,
            duration=duration,
            evaluate_every=duration,
            seed=self.options.seed,
        )

    def head_task(self, head: ReadHead, num_steps: int, *, everything: bool) -> Task:
        """The Task in which a decoder that has read the texts learns the classes."""
        tokens = token_rows(self.train.texts, head.tokenizer, head.shape.context)
        data, held = (
            token_arrays(tokens[rows], self.wanted[rows])
            for rows in (self.rows(everything=everything), self.choice)
        )
        return head.learning_task(
            self.target.objective(ClassifierObjective()), data, None if everything else held,
            num_outputs=len(self.train.classes), num_steps=num_steps, seed=self.options.seed,
        )  # fmt: skip

    # ---- the contract

    def steps_in(self, epochs: float) -> int:
        """Returns the steps in so many passes; the bag's length is fixed."""
        if self.encoder is not None:
            return max(1, round(epochs * (len(self.encoder_rows) // self.batch_size)))
        return max(1, round(epochs * self.bag_task(everything=True).steps_per_epoch))

    @classmethod
    def goal_of_study(cls, options: Mapping[str, Any]) -> tuple[str, str]:
        if options.get("from_") is None:
            raise UsageError(
                "A study of classifiers of texts must be of a pretrained encoder",
                got="Volano's own kinds, which each training chooses between by itself",
                remedy="Name an encoder by `from_`, or train without a study",
            )
        return goal_of_target(options)

    def for_study(self) -> Self:
        """Implements :meth:`Application.for_study`: the texts of a split val are evaluated, or some
        of each class; and not trained on."""
        choice = self.choice if len(self.choice) else some_held_back(self.train, self.options.seed)
        settled = self.with_options(tune=self.tune)
        return dataclasses.replace(settled, choice=choice, is_compared=True)

    def recipe_of(self, num_steps: int) -> EncoderRecipe:  # noqa: ARG002 - the same for all lengths
        """The recipe of a run of so many steps, of an encoder."""
        return choose_recipe(self.tune, self.begun.probe, self.batch_size)

    def task(self, num_steps: int, recipe: EncoderRecipe | None = None) -> Task:
        """Builds the Task that trains what is kept on all training texts."""
        if self.encoder is not None:
            return self.encoder_task(num_steps, recipe)
        if self.head is None:
            return self.bag_task(everything=True, num_steps=num_steps)
        return self.head_task(self.head, num_steps, everything=True)

    def about_keeping(self) -> tuple[str, ...]:
        """Implements :meth:`Application.about_keeping`: no test text has a say."""
        return (f"keep=best: the best by {len(self.choice):,} texts that are not trained on",)

    def goal(self) -> dict[str, Any]:
        return {"goal": GOAL}

    @property
    def spec(self) -> ClassesSpec:
        """The description of what is kept, of an encoder if nothing was chosen."""
        if self.kept is not None:
            return self.kept
        expected = self.begun.probe.accuracy
        return self.spec_of({} if expected is None else {ENCODER: round(expected, 4)}, None)

    def spec_of(self, candidates: dict[str, float], head: ReadHead | None) -> ClassesSpec:
        """Describes what is kept: the head if there is one, else the bag."""
        common: dict[str, Any] = {
            "classes": self.train.classes,
            "candidates": candidates,
            "num_buckets": self.num_buckets,
            "target": self.target.to_json(),
        }
        if self.encoder is not None:
            about = described_encoder(self.encoder, self.tune)
            return ClassesSpec(kept=ENCODER, encoder=about, **{**common, "num_buckets": 0})
        if head is None:
            return ClassesSpec(kept=BAG, **common)
        return ClassesSpec(
            kept=DECODER_HEAD,
            vocab_size=head.shape.vocab_size,
            context=head.shape.context,
            depth=head.shape.depth,
            tokenizer_digest=head.tokenizer.digest(),
            **common,
        )

    def write(self, folder: RunFolder, scratch: Path | None) -> None:  # noqa: ARG002 - of the contract
        """Writes the description, which text is in which split, and tokenizer and weights of a
        decoder that has read the texts."""
        train = self.train.members()
        parts = {
            TRAIN: train,
            VALID: [train[row] for row in self.choice],
            TEST: self.test.members(),
        }
        classes = self.train.classes if self.train.kind == CLASSES else ()
        folder.write_json(SPLITS_NAME, SplitRecord(classes=classes, parts=parts).to_json())
        folder.write_json(self.spec.file, self.spec.to_json())
        if self.encoder is not None:
            write_bytes(folder.path / TOKENIZER, self.encoder.tokenizer.content)
            self.begun.probe.save(folder.path / PROBE, save_tensors)
        if self.head is not None:
            self.head.save(folder)

    @classmethod
    def from_run(cls, folder: RunFolder) -> Self:
        """Reads the texts again, and what the run's folder keeps of the choice.

        Raises:
            CheckpointError: the folder does not hold it.
            UsageError: the texts are no longer there.
        """
        options, record = cls.options_of(folder), cls.splits_of(folder)
        spec = ClassesSpec.of_run(folder)
        found = super().from_run(folder) if record is None else cls._recorded(options, spec, record)
        found = dataclasses.replace(found, kept=spec, head=ReadHead.load(folder, spec))
        if spec.encoder is None:
            return found
        start = FineTuningStart.of_run(folder.path)
        return dataclasses.replace(found, encoder=encoder_of(options.from_), start=start)

    @classmethod
    def _recorded(cls, options: ClassifyOptions, spec: ClassesSpec, record: SplitRecord) -> Self:
        """Reads the texts of a run again, each on its side.

        Raises:
            CheckpointError: texts that the run was trained on are missing.
            UsageError: the texts are no longer there.
        """
        sets = read_again(options, spec)
        every = together(sets)
        present = every.members()
        train, test = (every.select(member_rows(record[split], present)) for split in (TRAIN, TEST))
        record.check_there({TRAIN: train, TEST: test}, present, "texts", options.path)
        choice = np.sort(np.array(member_rows(record[VALID], train.members()), dtype=np.int64))
        return cls(
            options=options, train=train, choice=choice, test=test, is_held_out=sets.test is None,
            origin=sets.origin, faults=sets.faults, notices=sets.notices,
        )  # fmt: skip

    @classmethod
    def test_of_run(cls, folder: RunFolder) -> tuple[LabelledTexts, str, tuple[str, ...]]:
        """Returns a run's own test texts, their origin, and notices of what has changed since.

        Raises:
            DataError: none of them is there.
            UsageError: the texts are no longer there.
        """
        options, record = cls.options_of(folder), cls.splits_of(folder)
        if record is None:
            again = cls.from_run(folder)
            return again.test, again.origin, ()
        sets = read_again(options, ClassesSpec.of_run(folder))
        every = together(sets)
        present = every.members()
        test = every.select(member_rows(record[TEST], present))
        record.check_tested(test, "texts", options.path)
        changes = record.changes(present, "texts")
        return test, sets.origin, (*sets.notices, *changes, *fault_notices(sets.faults))
