"""The bag of n-grams beside scikit-learn's."""

import numpy as np
import torch

from volano.apps.text.classify.bag import (
    BagClassifier,
    BagDataset,
    choose_buckets,
    hash_texts,
    inverse_frequencies,
)

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
        assert (
            ids[2, : sizes[1]].tolist()
            == hashed.ids[hashed.offsets[1] : hashed.offsets[2]].tolist()
        )
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
