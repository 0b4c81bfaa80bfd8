"""Commands are read by a shell as they were meant."""

from types import SimpleNamespace

from volano.record import shell


def test_words_are_quoted_as_the_systems_shell_reads_them(monkeypatch):
    assert shell.command(["volano", "resume", "my run's"]) == "volano resume 'my run'\"'\"'s'"
    monkeypatch.setattr(shell, "os", SimpleNamespace(name="nt"))
    words = ["volano", "resume", r"C:\my runs\1", r"C:\runs\1"]
    assert shell.command(words) == r'volano resume "C:\my runs\1" C:\runs\1'
