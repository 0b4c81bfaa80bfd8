"""The texts on disk."""
