import json

import pytest

from volano.data.sources import decode_text, find_texts, split_texts
from volano.errors import DataError, MissingExtraError, UsageError


def texts_of(source, faults=None):
    return [document.text for document in source.read(faults)]


def write_folder(root, num=12, size=900):
    root.mkdir()
    for number in range(num):
        (root / f"{number:02d}.txt").write_text(f"document {number}\n" + f"line {number} of it\n" * (size // 14))
    return root


class TestSources:
    def test_a_folder_of_text_and_code(self, tmp_path):
        (tmp_path / "sub").mkdir()
        (tmp_path / "b.md").write_text("two")
        (tmp_path / "a.txt").write_text("one")
        (tmp_path / "sub" / "c.py").write_text("three")
        (tmp_path / "picture.png").write_bytes(b"\x89PNG")
        (tmp_path / ".hidden.txt").write_text("not read")
        source = find_texts(tmp_path)
        assert texts_of(source) == ["one", "two", "three"]
        assert texts_of(source) == ["one", "two", "three"]  # as often as one likes
        assert [document.name for document in source.read()] == ["a.txt", "b.md", "sub/c.py"]
        assert source.notices == ("1 files are not named like text and are not read",)

    def test_a_file_is_text_whatever_its_name(self, tmp_path):
        (tmp_path / "NOTES").write_text("one")
        assert texts_of(find_texts(tmp_path / "NOTES")) == ["one"]

    def test_json_lines(self, tmp_path):
        rows = ['{"text": "one"}', "", "{broken", '"text"', '{"text": 7}', '{"text": null}', '{"text": "two\\n"}']
        (tmp_path / "rows.jsonl").write_text("\n".join(rows))
        faults = []
        assert texts_of(find_texts(tmp_path / "rows.jsonl"), faults) == ["one", "two\n"]
        assert [fault.reason.split(":")[0] for fault in faults] == [
            "not JSON", "a JSON str, not an object", "text is int, not text"
        ]  # fmt: skip
        assert faults[0].path.endswith("rows.jsonl:3")

    def test_half_a_character_in_json_is_replaced_and_listed(self, tmp_path):
        (tmp_path / "rows.jsonl").write_text('{"text": "a\\ud800b"}')
        faults = []
        assert texts_of(find_texts(tmp_path / "rows.jsonl"), faults) == ["a?b"]
        assert "half a character" in faults[0].reason

    def test_csv_with_long_fields(self, tmp_path):
        (tmp_path / "rows.csv").write_text('id,Content\n1,"' + "long, " * 50_000 + '"\n2,short\n')
        assert [len(text) for text in texts_of(find_texts(tmp_path / "rows.csv"))] == [300_000, 5]

    def test_parquet(self, tmp_path):
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet")
        table = pyarrow.Table.from_pylist([{"n": n, "text": f"row {n}"} for n in range(3)])
        pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
        assert texts_of(find_texts(tmp_path)) == ["row 0", "row 1", "row 2"]
        (tmp_path / "rows.parquet").write_bytes(b"no table")
        with pytest.raises(DataError, match=r"\.parquet file is a Parquet table"):
            texts_of(find_texts(tmp_path / "rows.parquet"))

    def test_parquet_without_pyarrow(self, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        (tmp_path / "rows.parquet").write_bytes(b"")
        with pytest.raises(MissingExtraError, match=r"volano\[data\]"):
            texts_of(find_texts(tmp_path / "rows.parquet"))

    def test_tables_in_a_folder_that_cannot_be_read_are_passed_over(self, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        (tmp_path / "a.csv").write_text("id,words\n1,x\n")
        (tmp_path / "b.parquet").write_bytes(b"no table")
        (tmp_path / "c.jsonl").write_text('{"text": "one"}\n{"words": "x"}\n')
        (tmp_path / "d.txt").write_text("two")
        faults = []
        assert texts_of(find_texts(tmp_path), faults) == ["one", "two"]
        assert [fault.path.rsplit("/", 1)[-1] for fault in faults] == ["a.csv", "b.parquet", "c.jsonl"]
        assert [fault.reason.split(";")[0].split(",")[0] for fault in faults] == [
            "A table has a column of text", "Parquet files are read with pyarrow", "A table has a column of text"
        ]  # fmt: skip

    @pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
    def test_undecodable_bytes_in_tables_are_listed(self, tmp_path, name):
        rows = {
            "rows.csv": b"text\nplain\nna\xefve\n\xef\xbf\xbd meant\n",
            "rows.jsonl": b'{"text": "plain"}\n{"text": "na\xefve"}\n{"text": "\xef\xbf\xbd meant"}\n',
        }
        (tmp_path / name).write_bytes(rows[name])
        faults = []
        assert texts_of(find_texts(tmp_path / name), faults) == ["plain", "na\ufffdve", "\ufffd meant"]
        assert [(fault.path, fault.reason) for fault in faults] == [
            (f"{tmp_path / name}:2", "1 undecodable places were read as U+FFFD")
        ]

    def test_a_table_without_text(self, tmp_path):
        (tmp_path / "rows.jsonl").write_text(json.dumps({"label": 1, "words": "x"}))
        with pytest.raises(DataError, match=r"column of text, named text or .*; got .* with label, words"):
            texts_of(find_texts(tmp_path / "rows.jsonl"))

    def test_the_standard_library(self):
        source = find_texts(None)
        documents = {document.name: document.text for document in source.read()}
        assert "class Path" in "".join(text for name, text in documents.items() if "pathlib" in name)
        assert not [name for name in documents if "site-packages" in name or name.startswith("test/")]

    def test_nothing_there(self, tmp_path):
        with pytest.raises(UsageError, match="path to train on exists"):
            find_texts(tmp_path / "nowhere")
        (tmp_path / "a.png").write_bytes(b"")
        with pytest.raises(DataError, match="named like text .* got .* with 1 other files"):
            find_texts(tmp_path)


class TestDecoding:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
    def test_unicode(self, encoding):
        assert decode_text("größer\r\n".encode(encoding)) == ("größer\r\n", None)

    def test_blemishes_are_replaced_and_said(self):
        text, reason = decode_text(b"plain words and a stray " + b"\xff" + b" byte")
        assert text == "plain words and a stray \ufffd byte"
        assert reason == "1 undecodable places were read as U+FFFD"

    @pytest.mark.parametrize("content", [b"\x89PNG\0\0", bytes(range(128, 256)), b"\xff\xfe\0"])
    def test_what_is_no_text_is_left_out(self, content):
        text, reason = decode_text(content)
        assert text == ""
        assert reason is not None
        assert reason.startswith("not text")


class TestSplit:
    def test_whole_documents_are_held_out(self, tmp_path):
        source = find_texts(write_folder(tmp_path / "texts", num=40))
        split = split_texts(source, seed=0)
        parts = [split.parts(number, document) for number, document in enumerate(source.read())]
        assert all((train == "") != (held == "") for train, held in parts)
        num_held = sum(len(held) for _, held in parts)
        assert 0.04 < num_held / split.num_bytes < 0.12
        assert split_texts(source, seed=0) == split
        assert split_texts(source, seed=1).held != split.held

    def test_copies_stay_on_one_side(self, tmp_path):
        folder = write_folder(tmp_path / "texts", num=30)
        for number in range(30):
            (folder / f"copy-{number:02d}.txt").write_text((folder / f"{number:02d}.txt").read_text())
        source = find_texts(folder)
        split = split_texts(source, seed=0)
        texts = texts_of(source)
        held = {texts[number] for number in split.held}
        assert not held & {text for number, text in enumerate(texts) if number not in split.held}
        assert "30 documents are exact copies" in split.notices[0]

    def test_copies_of_the_document_that_gives_its_end_are_not_trained_on(self, tmp_path):
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

    def test_the_end_is_counted_in_bytes(self, tmp_path):
        (tmp_path / "one.txt").write_text("\n".join("слова и строки" for _ in range(1000)), encoding="utf-8")
        source = find_texts(tmp_path / "one.txt")
        split = split_texts(source, seed=0)
        _, held = split.parts(0, next(source.read()))
        assert 0.05 < len(held.encode()) / split.num_bytes < 0.08

    def test_one_document_gives_its_end(self, tmp_path):
        text = "".join(f"line {number}\n" for number in range(2000))
        (tmp_path / "one.txt").write_text(text)
        source = find_texts(tmp_path / "one.txt")
        split = split_texts(source, seed=0)
        train, held = split.parts(0, next(source.read()))
        assert train + held == text
        assert train.endswith("\n")
        assert 0.04 < len(held) / len(text) < 0.08
        assert "the last" in split.notices[0]

    def test_near_duplicate_headers_are_noted(self, tmp_path):
        folder = tmp_path / "texts"
        folder.mkdir()
        header = "".join(f"This licence text number {line} stands in every file.\n" for line in range(5))
        for number in range(10):
            body = "\n".join(f"words of document {number}, line {line}" for line in range(50))
            (folder / f"{number}.txt").write_text(header + body)
        (notice,) = split_texts(find_texts(folder), seed=0).notices
        assert notice.startswith("near-duplicate headers: 10 of 10 documents")
        assert not split_texts(find_texts(write_folder(tmp_path / "others")), seed=0).notices

    @pytest.mark.parametrize("content", [b"", b"\0\1\2"])
    def test_no_text_at_all(self, tmp_path, content):
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(DataError, match=r"There is text to train on; got none in .*: .*a\.txt: (empty|not text)"):
            split_texts(find_texts(tmp_path), seed=0)
