"""From a source of texts to tokens in files."""

from volano.apps.text import corpus
from volano.apps.text.corpus import prepare_corpus
from volano.data.sources import find_texts


def test_a_large_text_gives_the_tokenizer_documents_from_everywhere(tmp_path, monkeypatch):
    (tmp_path / "texts").mkdir()
    (tmp_path / "tokens").mkdir()
    for number in range(40):
        word = "apple" if number < 20 else "zebra"
        body = " ".join(f"{word} {number * line % 97}" for line in range(100))
        (tmp_path / "texts" / f"{number:02d}.txt").write_text(body)
    monkeypatch.setattr(corpus, "_MOST_TOKENIZER_BYTES", 4000)
    tokenizer = prepare_corpus(
        find_texts(tmp_path / "texts"), tmp_path / "tokens", seed=0
    ).tokenizer
    assert len(tokenizer.encode(" apple")) == len(tokenizer.encode(" zebra")) == 1
