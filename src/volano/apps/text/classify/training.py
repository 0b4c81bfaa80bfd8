"""Makes Tasks from labelled texts: two kinds of classifier, the bag of n-grams and the language
model's head."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from volano.apps.application import Application
from volano.apps.options import Options
from volano.apps.shared_options import batch_in_words, columns_of
from volano.apps.targets.find_target import target_of_data
from volano.apps.targets.target import Target
from volano.apps.text.classify.bag import (
    BagClassifier,
    BagDataset,
    BagObjective,
    HashedTexts,
    choose_buckets,
    hash_texts,
    inverse_frequencies,
)
from volano.apps.text.classify.begin import encoder_of
from volano.apps.text.classify.classifier import (
    ClassifierObjective,
    DecoderClassifier,
    classifier_parameter_groups,
    token_arrays,
    token_rows,
)
from volano.apps.text.classify.encoder import (
    EncoderObjective,
    described_encoder,
    encoder_batch,
    encoder_features,
    encoder_fields,
)
from volano.apps.text.classify.model_spec import BAG, DECODER_HEAD, ENCODER, ClassesSpec
from volano.apps.text.classify.options import ClassifyOptions
from volano.apps.text.classify.read_head import ReadHead
from volano.apps.text.classify.splits import held_back, read_again, together
from volano.apps.text.model_spec import CLASSES_GOAL as GOAL
from volano.data import Fault, fault_notices
from volano.data.sources import (
    CLASSES,
    SPLITS_NAME,
    TEST,
    TRAIN,
    VALID,
    LabelledTexts,
    LabelledTextSets,
    SplitRecord,
    TargetFormat,
    check_trained,
    contradictions,
    copies_of_training,
    hold_out_rows,
    member_rows,
    read_labelled_texts,
)
from volano.device import Device
from volano.errors import UsageError
from volano.pretrained.frozen_features import FineTuningStart
from volano.pretrained.linear_probe import PROBE, LinearProbe, solve_probe
from volano.pretrained.text_encoders import TOKENIZER, TextEncoder, TokenTexts, TokenTextsDataset
from volano.record.files import write_bytes
from volano.task import Task, linear
from volano.training import MuonAdamW, RunFolder, save_tensors

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
        probe: the solved head of its features; None: not solved yet.
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
    probe: LinearProbe | None = None

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
        train, test = _split(sets, options)
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
            options=dataclasses.replace(options, target=train.kind),
            train=train,
            choice=choice,
            test=test,
            is_held_out=is_held_out,
            origin=sets.origin,
            faults=sets.faults,
            notices=tuple(notices),
            encoder=encoder,
        )

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

    def begin(self, device: Device) -> FineTuningStart:
        """Solves a head of the frozen features of the training texts, of some if they are many;
        those to choose by are left out if the best weights on them are kept."""
        assert self.encoder is not None
        rows = self.rows(everything=self.options.keep != "best")
        rows = rows[self.target.rows_to_solve(self.train.labels[rows])]
        features, seconds = encoder_features(self.encoder, self.tokens, rows, device)
        wanted, solver = torch.from_numpy(self.wanted[rows]), self.target.head_solver()
        texts = [self.train.texts[row] for row in rows]
        probe = solve_probe(features, wanted, solver, seed=self.options.seed, keys=texts)
        return FineTuningStart(probe=probe, example_seconds=seconds)

    def encoder_task(self, num_steps: int) -> Task:
        """The Task that fine-tunes the encoder; the texts to choose by are left out if the best
        weights on them are kept."""
        assert self.encoder is not None
        assert self.probe is not None
        has_valid, tune = self.options.keep == "best", self.options.tune or "head"
        labels, rows = self.wanted, self.rows(everything=not has_valid)
        return Task(
            name="text",
            objective=self.target.objective(EncoderObjective()),
            data=TokenTextsDataset(self.tokens, rows, labels),
            valid=TokenTextsDataset(self.tokens, self.choice, labels) if has_valid else None,
            collate=TokenTextsDataset.collate,
            **encoder_fields(self.encoder, tune, self.probe, len(self.train.classes)),
            batch_size=self.batch_size,
            duration=f"{num_steps}st",
            evaluate_every=f"{max(1, -(-num_steps // 5))}st",
            seed=self.options.seed,
        )

    @property
    def batch_size(self) -> int:
        """The texts per step of the encoder."""
        num = len(self.rows(everything=self.options.keep != "best"))
        return min(num, self.options.batch_size or encoder_batch(num))

    def rows(self, *, everything: bool) -> np.ndarray:
        """Returns the rows that are trained on: all, or what is not held back."""
        return np.arange(len(self.train)) if everything else self.fit_rows

    def bag_task(self, *, everything: bool, num_steps: int | None = None) -> Task:
        """The Task of the bag; ``num_steps``: fewer than its ten epochs, if they take too long.

        Ten epochs of 256 texts, SGD with Nesterov momentum 0.9, lr 16 (inputs have norm 1, so
        curvature is small) with linear decay, and the L2 penalty of a logistic regression of C = 4.
        Measured on 8,000 descriptions of Debian packages in 10 sections, 2,000 held out (0.9 points
        of standard error): lr 2: 0.771, 8: 0.7985, 16: 0.8015, 32: 0.803; AdamW with several rates
        and decays 0.746 to 0.7825: its steps of equal size for rare and common n-grams learn the
        rare ones by heart.
        """

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
            optimizer=functools.partial(
                torch.optim.SGD,
                lr=16.0 * self.target.rate,
                momentum=0.9,
                nesterov=True,
                weight_decay=0.25 / len(rows),
            ),
            schedule=linear(),
            batch_size=batch_size,
            duration=duration,
            evaluate_every=duration,
            seed=self.options.seed,
        )

    def head_task(self, head: ReadHead, num_steps: int, *, everything: bool) -> Task:
        """The Task in which a decoder that has read the texts learns the classes; its rates are
        half of those with which it read, so that it does not forget."""
        rows, held = self.rows(everything=everything), self.choice
        tokens = token_rows(self.train.texts, head.tokenizer, head.shape.context)
        # A file gives them back in this order, and the description names them.
        weights = dict(sorted(head.weights.items()))
        return Task(
            name="text",
            model=functools.partial(
                DecoderClassifier, head.shape, len(self.train.classes), weights
            ),
            objective=self.target.objective(ClassifierObjective()),
            data=token_arrays(tokens[rows], self.wanted[rows]),
            valid=None if everything else token_arrays(tokens[held], self.wanted[held]),
            optimizer=MuonAdamW,
            parameter_groups=functools.partial(
                classifier_parameter_groups, matrix_lr=0.01, rest_lr=0.005
            ),
            schedule=linear(),
            batch_size=min(64, max(1, len(rows) // 8)),
            duration=f"{num_steps}st",
            evaluate_every=f"{num_steps}st",
            seed=self.options.seed,
        )

    # ---- the contract

    def steps_in(self, epochs: float) -> int:
        """Returns the steps in so many passes; the bag's length is fixed."""
        if self.encoder is not None:
            num = len(self.rows(everything=self.options.keep != "best"))
            return max(1, round(epochs * (num // self.batch_size)))
        return max(1, round(epochs * self.bag_task(everything=True).steps_per_epoch))

    def recipe_of(self, num_steps: int) -> Any:  # noqa: ARG002 - of the contract
        """Raises an error: nothing of these trainings is varied."""
        raise UsageError(
            "A study must be of images, language models of Volano's own, or clips",
            got="labelled texts",
        )

    def task(self, num_steps: int, recipe: Any = None) -> Task:  # noqa: ARG002 - of the contract
        """Builds the Task that trains what is kept on all training texts."""
        if self.encoder is not None:
            return self.encoder_task(num_steps)
        if self.head is None:
            return self.bag_task(everything=True, num_steps=num_steps)
        return self.head_task(self.head, num_steps, everything=True)

    def about_keeping(self) -> tuple[str, ...]:
        """Implements :meth:`Application.about_keeping`: no test text has a say."""
        return (f"keep=best: the best by {len(self.choice):,} texts that are not trained on",)

    def goal(self) -> dict[str, Any]:
        return {"goal": GOAL}

    def spec_of(self, candidates: dict[str, float], head: ReadHead | None) -> ClassesSpec:
        """Describes what is kept: the head if there is one, else the bag."""
        common: dict[str, Any] = {
            "classes": self.train.classes,
            "candidates": candidates,
            "num_buckets": self.num_buckets,
            "target": self.target.to_json(),
        }
        if self.encoder is not None:
            about = described_encoder(self.encoder, self.options.tune or "head")
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
        assert self.kept is not None
        train = self.train.members()
        parts = {
            TRAIN: train,
            VALID: [train[row] for row in self.choice],
            TEST: self.test.members(),
        }
        classes = self.train.classes if self.train.kind == CLASSES else ()
        folder.write_json(SPLITS_NAME, SplitRecord(classes=classes, parts=parts).to_json())
        folder.write_json(self.kept.file, self.kept.to_json())
        if self.encoder is not None and self.probe is not None:
            write_bytes(folder.path / TOKENIZER, self.encoder.tokenizer.content)
            self.probe.save(folder.path / PROBE, save_tensors)
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
        probe = LinearProbe.load(folder.path / PROBE)
        return dataclasses.replace(found, encoder=encoder_of(options.from_), probe=probe)

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
        return cls(
            options=options,
            train=train,
            choice=np.sort(np.array(member_rows(record[VALID], train.members()), dtype=np.int64)),
            test=test,
            is_held_out=sets.test is None,
            origin=sets.origin,
            faults=sets.faults,
            notices=sets.notices,
        )

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


def _split(sets: LabelledTextSets, options: ClassifyOptions) -> tuple[LabelledTexts, LabelledTexts]:
    """Returns texts to train on and to test on, held out here if the source names none."""
    train = sets.train
    if sets.test is not None:
        return train, sets.test
    keys = [member.key for member in train.members()]
    kept, held = hold_out_rows(
        keys, train.labels, train.classes, seed=options.seed, what="texts", by=options.held_out_by,
        kind=train.kind,
    )  # fmt: skip
    return train.select(kept), train.select(held)
