import pytest

from volano.data.sources import decode_text, find_texts
from volano.errors import DataError, UsageError


def texts_of(source, faults=None):
    return [document.text for document in source.read(faults)]


def write_folder(root, num=12, size=900):
    root.mkdir()
    for number in range(num):
        (root / f"{number:02d}.txt").write_text(
            f"document {number}\n" + f"line {number} of it\n" * (size // 14)
        )
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
        assert source.notices == ("not named like text, and not read: 1 file",)

    def test_a_file_is_text_whatever_its_name(self, tmp_path):
        (tmp_path / "NOTES").write_text("one")
        assert texts_of(find_texts(tmp_path / "NOTES")) == ["one"]

    def test_the_standard_library(self):
        source = find_texts(None)
        documents = {document.name: document.text for document in source.read()}
        assert "class Path" in "".join(
            text for name, text in documents.items() if "pathlib" in name
        )
        assert not [
            name for name in documents if "site-packages" in name or name.startswith("test/")
        ]

    def test_nothing_there(self, tmp_path):
        with pytest.raises(UsageError, match="`path` must exist"):
            find_texts(tmp_path / "nowhere")
        (tmp_path / "a.png").write_bytes(b"")
        with pytest.raises(DataError, match="named like text .*got .* with 1 other files"):
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
