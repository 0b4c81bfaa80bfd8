"""What several tests of packs use."""

import pytest

from volano.pack import choice


@pytest.fixture
def slow_loop(monkeypatch):
    """A choice that looks at every engine but the compiled ones, and for which the loop is slow."""
    monkeypatch.setattr(choice, "_WORTH_TRACING", 0.0)
    monkeypatch.setattr(choice, "_COMPILE_SECONDS", 1e9)
    own = choice._alone

    def slow(*given):
        losses, _ = own(*given)
        return losses, 10.0

    monkeypatch.setattr(choice, "_alone", slow)
