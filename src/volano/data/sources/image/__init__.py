"""The images on disk."""
