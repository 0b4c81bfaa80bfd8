from pathlib import Path

import numpy as np
import pytest
import torch

from volano.apps.text.classify.application import ClassifyApplication
from volano.apps.text.classify.bag import BagClassifier, BagDataset, choose_buckets, hash_texts, inverse_frequencies
from volano.apps.text.classify.classifier import DecoderClassifier, token_rows
from volano.apps.text.classify.model_spec import BAG, HEAD, ClassesSpec, predict_texts
from volano.apps.text.classify.options import ClassifyOptions
from volano.apps.text.network import DecoderShape
from volano.apps.text.tokenizer import train_tokenizer
from volano.data.sources import read_labelled_texts, read_texts
from volano.device import Device
from volano.errors import CheckpointError, DataError, UsageError
from volano.plan import Plan
from volano.training import run_trial

TEXTS = ["the cat sat on the mat", "a dog barked", "", "größer als das the"]


class TestBag:
    def test_against_scikit_learns_tfidf(self):
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

        num_buckets = 2**15
        hashed = hash_texts(TEXTS, num_buckets)
        words = HashingVectorizer(
            n_features=num_buckets // 2,
            ngram_range=(1, 2),
            token_pattern=r"(?u)\b\w+\b",
            norm=None,
            alternate_sign=False,
        ).transform(TEXTS)
        expected = TfidfTransformer(sublinear_tf=True).fit_transform(words).toarray()
        model = BagClassifier(num_buckets, 2, inverse_frequencies(hashed, num_buckets))
        # A table of zeros but for one word's bucket gives that word's weight.
        bucket = int(words[0].indices[0])
        with torch.no_grad():
            model.table.weight[1 + bucket, 0] = 1.0
            logits = model(*hashed.padded(np.arange(4)))
        np.testing.assert_allclose(logits[:, 0].numpy(), expected[:, bucket], rtol=1e-5, atol=1e-7)

    def test_batches_are_padded_rows(self):
        hashed = hash_texts(TEXTS, 2**15)
        data = BagDataset(hashed, np.array([0, 1, 0, 1]))
        ids, weights, labels = BagDataset.collate([data[3], data[2], data[1]])
        assert labels.tolist() == [1, 0, 1]
        sizes = np.diff(hashed.offsets)
        assert (ids != 0).sum(1).tolist() == [sizes[3], 0, sizes[1]]
        assert torch.equal(weights != 0, ids != 0)
        assert ids[2, : sizes[1]].tolist() == hashed.ids[hashed.offsets[1] : hashed.offsets[2]].tolist()
        assert data.fingerprint() != BagDataset(hashed, np.array([1, 1, 0, 1])).fingerprint()

    def test_an_empty_text_gets_the_bias(self):
        model = BagClassifier(2**15, 3)
        torch.nn.init.normal_(model.table.weight)
        torch.nn.init.normal_(model.bias)
        assert torch.equal(model(*hash_texts([""], 2**15).padded(np.array([0])))[0], model.bias)

    def test_tables_stay_small(self):
        assert choose_buckets(2) == choose_buckets(10) == 2**18
        assert choose_buckets(64) * 64 <= 2**24
        assert choose_buckets(10_000) == choose_buckets(64)
        model = BagClassifier(2**15, 100)
        assert model.table.weight.shape == (2**15 + 1, 64)
        assert model(*hash_texts(TEXTS, 2**15).padded(np.arange(4))).shape == (4, 100)


class TestHead:
    def test_filling_changes_nothing(self):
        torch.manual_seed(0)
        model = DecoderClassifier(DecoderShape(vocab_size=300, context=32, depth=2), 3)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        short = torch.tensor([[0, 5, 6, 7]], dtype=torch.int16)
        filled = torch.nn.functional.pad(short, (0, 9))
        torch.testing.assert_close(model(filled), model(short), rtol=0, atol=1e-5)

    def test_rows_of_tokens(self):
        tokenizer = train_tokenizer(["some words of a text " * 20], 300)
        rows = token_rows(["some", "", "words of a text " * 50], tokenizer, 16)
        assert rows.shape == (3, 16)
        assert rows[:, 0].tolist() == [0, 0, 0]
        assert tokenizer.decode(row for row in rows[0].tolist()) == b"some"
        assert not rows[1].any()


def write_table(path, num=120):
    lines = ["label,text"]
    for number in range(num):
        name, word = (("fruit", "apple"), ("tool", "hammer"), ("animal", "horse"))[number % 3]
        lines.append(f'{name},"number {number}: a {word} and {word} number {number * 7 % 11}"')
    path.write_text("\n".join(lines))
    return path


def read_classes(path):
    return ClassifyApplication.read(ClassifyOptions(path=path))


class TestSources:
    def test_a_table(self, tmp_path):
        sets = read_labelled_texts(write_table(tmp_path / "t.csv"))
        assert sets.train.classes == ("animal", "fruit", "tool")
        assert len(sets.train) == 120
        assert sets.test is None

    def test_a_column_of_splits(self, tmp_path):
        rows = ["text,label,split", "a b,x,train", "c d,y,train", "e f,x,test", ",y,train", "g,,train"]
        (tmp_path / "t.csv").write_text("\n".join(rows))
        sets = read_labelled_texts(tmp_path / "t.csv")
        assert sets.test is not None
        assert sets.test.texts == ("e f",)
        assert [fault.reason for fault in sets.faults] == ["without text", "without a label"]

    def test_splits_ignore_case_and_blanks(self, tmp_path):
        rows = ["text,label, Split ", "a,x,Train", "b,y, train ", "c,x,TEST ", "d,y,", "e,y,Dev"]
        (tmp_path / "t.csv").write_text("\n".join(rows))
        sets = read_labelled_texts(tmp_path / "t.csv")
        assert sets.train.texts == ("a", "b", "d")
        assert sets.test is not None
        assert sets.test.texts == ("c",)
        assert sets.valid is not None
        assert sets.valid.texts == ("e",)

    def test_an_unknown_split_is_refused(self, tmp_path):
        (tmp_path / "t.csv").write_text("text,label,split\na,x,train\nb,y,holdout\n")
        with pytest.raises(DataError, match=r"split is train, val or test; got 'holdout' in .*t\.csv:2.* Rename it"):
            read_labelled_texts(tmp_path / "t.csv")

    def test_a_class_that_is_only_tested_is_refused(self, tmp_path):
        (tmp_path / "t.csv").write_text("text,label,split\na,x,train\nb,y,train\nc,z,test\n")
        with pytest.raises(DataError, match=r"Every class has texts to train on; got only in the test set of .*: z"):
            read_labelled_texts(tmp_path / "t.csv")

    def test_beside_a_test_set_val_is_chosen_by(self, tmp_path):
        rows = [f"word {n},{'xy'[n % 2]},{('train', 'val', 'test')[n % 3]}" for n in range(30)]
        (tmp_path / "t.csv").write_text("\n".join(["text,label,split", *rows]))
        application = read_classes(tmp_path / "t.csv")
        assert application.test.texts == tuple(f"word {n}" for n in range(2, 30, 3))
        assert [application.train.texts[row] for row in application.choice] == [f"word {n}" for n in range(1, 30, 3)]
        assert [application.train.texts[row] for row in application.fit_rows] == [f"word {n}" for n in range(0, 30, 3)]
        assert application.notices == ("the 10 texts of split val are held back to choose, and trained on after that",)
        assert not application.is_held_out

    def test_val_is_tested_where_there_is_no_test_set(self, tmp_path):
        (tmp_path / "t.csv").write_text("text,label,split\na,x,train\nb,y,train\nc,x,val\n")
        application = read_classes(tmp_path / "t.csv")
        assert application.test.texts == ("c",)
        assert application.notices == ()

    def test_texts_in_folders_keep_their_folders(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "a.txt").write_text(name)
        (tmp_path / "one" / "one").write_text("no text by its name")
        (tmp_path / "a.txt").write_text("loose")
        (tmp_path / "t.csv").write_text("text\nrow\n")
        found, _, _ = read_texts([Path("one"), tmp_path / "two", Path("a.txt"), Path("t.csv")])
        assert found == [
            ("one/a.txt", "one"), (str(tmp_path / "two" / "a.txt"), "two"), ("a.txt", "loose"), ("t.csv:1", "row")
        ]  # fmt: skip

    def test_class_folders_with_and_without_splits(self, tmp_path):
        for part in ("train", "test"):
            for name in ("x", "y"):
                folder = tmp_path / "split" / part / name
                folder.mkdir(parents=True)
                (folder / "1.txt").write_text(f"{part} {name}")
        sets = read_labelled_texts(tmp_path / "split")
        assert sets.test is not None
        assert (sets.train.texts, sets.test.texts) == (("train x", "train y"), ("test x", "test y"))
        plain = read_labelled_texts(tmp_path / "split" / "train")
        assert (plain.train.classes, plain.test) == (("x", "y"), None)

    def test_what_cannot_be_meant(self, tmp_path):
        with pytest.raises(UsageError, match="exists"):
            read_labelled_texts(tmp_path / "nowhere")
        (tmp_path / "a.txt").write_text("x")
        with pytest.raises(UsageError, match="table or a folder of class folders"):
            read_labelled_texts(tmp_path / "a.txt")
        (tmp_path / "one.csv").write_text("label,text\nx,one\nx,two")
        with pytest.raises(DataError, match=r"at least 2 classes; got 2 labelled texts of 1 classes \(x\)"):
            read_labelled_texts(tmp_path / "one.csv")
        (tmp_path / "none.csv").write_text("words,text\nx,one")
        with pytest.raises(DataError, match="column of labels"):
            read_labelled_texts(tmp_path / "none.csv")
        with pytest.raises(DataError, match="of the run's classes; got also x"):
            read_labelled_texts(tmp_path / "one.csv", classes=("y", "z"), least_classes=1)


def test_the_bag_learns(tmp_path):
    application = read_classes(write_table(tmp_path / "t.csv"))
    assert application.is_held_out
    assert len(application.test) == 18
    assert not set(application.fit_rows) & set(application.choice)
    plan = Plan.default("cpu").pin(feed="ring", workers=0, memory_format="contiguous")
    trial = run_trial(application.bag_task(everything=False), plan)
    assert trial.metrics["accuracy"] == 1.0
    spec = ClassesSpec(
        classes=application.train.classes, kept=BAG, candidates={BAG: 1.0}, num_buckets=application.num_buckets
    )
    logits = predict_texts(trial.model, spec, ["a hammer", "my horse"], Device("cpu"), None)
    assert [spec.classes[row] for row in logits.argmax(1).tolist()] == ["tool", "animal"]


def test_the_description_comes_back():
    spec = ClassesSpec(
        classes=("a", "b"), kept=HEAD, candidates={BAG: 0.5, HEAD: 0.6}, num_buckets=8, vocab_size=300, context=32,
        depth=2, tokenizer_digest="0",
    )  # fmt: skip
    assert ClassesSpec.from_json(spec.to_json()) == spec
    with pytest.raises(CheckpointError, match="describes a classifier"):
        ClassesSpec.from_json({**spec.to_json(), "goal": "language"})
