import numpy as np
import pytest
import torch

from data.sources.text.test_labelled_texts import read_classes, write_table
from volano.apps.text.classify.bag import BagClassifier, BagDataset, choose_buckets, hash_texts, inverse_frequencies
from volano.apps.text.classify.classifier import DecoderClassifier, token_rows
from volano.apps.text.classify.model_spec import BAG, HEAD, ClassesSpec, predict_texts
from volano.apps.text.network import DecoderShape
from volano.apps.text.tokenizer import train_tokenizer
from volano.device import Device
from volano.errors import CheckpointError
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
