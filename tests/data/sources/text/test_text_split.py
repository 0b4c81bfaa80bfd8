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
    assert 0.02 < num_held / split.num_bytes < 0.15  # whatever the die gives
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
    trained = set(range(60)) - split.held - split.copies
    assert not held & {texts[number] for number in trained}
    assert "30 documents are exact copies" in split.notices[0]
    # Of each held-out text one is evaluated.
    assert len(split.copies) == len(split.held)
    parts = [split.parts(number, document) for number, document in enumerate(source.read())]
    assert sum(bool(part) for _, part in parts) == len(split.held)
    assert split.num_bytes == sum(len(train) + len(test) for train, test in parts)


def sides(folder, **how):
    """The parts of each text, by the text."""
    source = find_texts(folder)
    split = split_texts(source, seed=0, **how)
    return {one.text: split.parts(number, one) for number, one in enumerate(source.read())}


@pytest.mark.parametrize(("num", "size"), [(60, 300), (3, 3000)])
def test_a_new_document_moves_no_other(tmp_path, num, size):
    """Held out whole, or in part where they are few."""
    folder = write_folder(tmp_path / "texts", num=num, size=size)
    before = sides(folder)
    assert any(held for _, held in before.values())
    for number in range(10):
        content = f"a new text number {number}\n" * (30 if num == 60 else 500)
        (folder / "00-new.txt").write_text(content)
        after = sides(folder)
        assert {text: after[text] for text in before} == before


def test_more_text_holds_out_less_of_it(tmp_path, monkeypatch):
    """By halves, so that what is trained on of less is trained on of more."""
    folder = write_folder(tmp_path / "texts", num=100, size=300)
    before = sides(folder)
    monkeypatch.setattr("volano.data.sources.text.text_split._MOST_HELD_BYTES", 1200)
    after = sides(folder)
    held, fewer = ({text for text, (_, out) in found.items() if out} for found in (before, after))
    assert fewer < held
    assert 400 < sum(map(len, fewer)) < 2400


def test_studies_of_earlier_versions_have_their_split(tmp_path):
    folder = write_folder(tmp_path / "texts", num=40)
    share = sum(len(held) for _, held in sides(folder, by="place").values())
    assert 0.04 < share / sum(map(len, sides(folder))) < 0.12
    few = write_folder(tmp_path / "few", num=2, size=9000)
    (few / "large.txt").write_text("a line of it\n" * 1000)
    held = {text: out for text, (_, out) in sides(few, by="place").items() if out}
    assert [*held] == ["a line of it\n" * 1000]


def test_copies_of_the_document_that_gives_its_end_are_not_trained_on(tmp_path):
    text = "".join(f"line {number}\n" for number in range(2000))
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "d.txt").write_text("something else\n" * 20)
    source = find_texts(tmp_path)
    split = split_texts(source, seed=0)
    parts = [split.parts(number, document) for number, document in enumerate(source.read())]
    train, held = ("".join(part) for part in zip(*parts, strict=True))
    assert held
    assert held not in train
    assert split.num_bytes == len(train) + len(held) == len(text) + 300  # d is too small
    assert "2 of what is held out are not read" in split.notices[0]


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
