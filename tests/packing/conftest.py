"""What several tests of packs use."""

import pytest

from volano.packing import choose_engine


@pytest.fixture
def slow_loop(monkeypatch):
    """A choice that looks at every engine but the compiled ones, and for which the loop is slow."""
    monkeypatch.setattr(choose_engine, "_WORTH_TRACING", 0.0)
    monkeypatch.setattr(choose_engine, "_COMPILE_SECONDS", 1e9)
    own = choose_engine.alone

    def slow(*given):
        references = own(*given)
        for reference in references.values():
            reference.seconds = 10.0
        return references

    monkeypatch.setattr(choose_engine, "alone", slow)
