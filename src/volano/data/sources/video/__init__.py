"""The clips on disk."""
