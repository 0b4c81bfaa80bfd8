"""What is held out of a text: whole documents or an end, and no copy of it is trained on."""

import pytest

from data.sources.text.test_texts import texts_of, write_folder
from volano.data.sources import find_texts, split_texts
from volano.errors import DataError


def test_whole_documents_are_held_out(tmp_path):
    source = find_texts(write_folder(tmp_path / "texts", num=40))
    split = split_texts(source, seed=0)
    parts = [split.parts(number, document) for number, document in enumerate(source.read())]
    assert all((train == "") != (held == "") for train, held in parts)
    num_held = sum(len(held) for _, held in parts)
    assert 0.04 < num_held / split.num_bytes < 0.12
    assert split_texts(source, seed=0) == split
    assert split_texts(source, seed=1).held != split.held


def test_copies_stay_on_one_side(tmp_path):
    folder = write_folder(tmp_path / "texts", num=30)
    for number in range(30):
        (folder / f"copy-{number:02d}.txt").write_text((folder / f"{number:02d}.txt").read_text())
    source = find_texts(folder)
    split = split_texts(source, seed=0)
    texts = texts_of(source)
    held = {texts[number] for number in split.held}
    assert not held & {text for number, text in enumerate(texts) if number not in split.held}
    assert "30 documents are exact copies" in split.notices[0]


def test_copies_of_the_document_that_gives_its_end_are_not_trained_on(tmp_path):
    text = "".join(f"line {number}\n" for number in range(2000))
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "d.txt").write_text("something else\n" * 30)
    source = find_texts(tmp_path)
    split = split_texts(source, seed=0)
    parts = [split.parts(number, document) for number, document in enumerate(source.read())]
    train, held = ("".join(part) for part in zip(*parts, strict=True))
    assert held
    assert held not in train
    assert split.num_bytes == len(train) + len(held) == len(text) + 450
    assert "its 2 exact copies are not read" in split.notices[-1]


def test_the_end_is_counted_in_bytes(tmp_path):
    (tmp_path / "one.txt").write_text(
        "\n".join("слова и строки" for _ in range(1000)), encoding="utf-8"
    )
    source = find_texts(tmp_path / "one.txt")
    split = split_texts(source, seed=0)
    _, held = split.parts(0, next(source.read()))
    assert 0.05 < len(held.encode()) / split.num_bytes < 0.08


def test_one_document_gives_its_end(tmp_path):
    text = "".join(f"line {number}\n" for number in range(2000))
    (tmp_path / "one.txt").write_text(text)
    source = find_texts(tmp_path / "one.txt")
    split = split_texts(source, seed=0)
    train, held = split.parts(0, next(source.read()))
    assert train + held == text
    assert train.endswith("\n")
    assert 0.04 < len(held) / len(text) < 0.08
    assert "the last" in split.notices[0]


def test_near_duplicate_headers_are_noted(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    header = "".join(
        f"This licence text number {line} stands in every file.\n" for line in range(5)
    )
    for number in range(10):
        body = "\n".join(f"words of document {number}, line {line}" for line in range(50))
        (folder / f"{number}.txt").write_text(header + body)
    (notice,) = split_texts(find_texts(folder), seed=0).notices
    assert notice.startswith("near-duplicate headers: 10 of 10 documents")
    assert not split_texts(find_texts(write_folder(tmp_path / "others")), seed=0).notices


@pytest.mark.parametrize("content", [b"", b"\0\1\2"])
def test_no_text_at_all(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(
        DataError,
        match=r"There must be text to train on; got none in .*: .*a\.txt: (empty|not text)",
    ):
        split_texts(find_texts(tmp_path), seed=0)
