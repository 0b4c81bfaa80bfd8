"""Why an engine does not take a task."""

from __future__ import annotations


class NotPackable(Exception):  # noqa: N818 - a refusal, caught by the engines' choice and never shown as an error
    """The operator or the reason, in words."""
