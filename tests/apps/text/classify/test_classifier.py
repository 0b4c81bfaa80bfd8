"""The language model's head."""

import torch

from volano.apps.text.classify.classifier import DecoderClassifier, token_rows
from volano.apps.text.network import DecoderShape
from volano.apps.text.tokenizer import train_tokenizer


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
