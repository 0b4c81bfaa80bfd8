"""The refusal of a task by an engine."""

from __future__ import annotations


class NotPackable(Exception):  # noqa: N818 - a refusal, caught by the engines' choice and never shown as an error
    """The error with the operator or the reason, in words, for which an engine does not take a
    task."""
