"""Texts on disk."""
