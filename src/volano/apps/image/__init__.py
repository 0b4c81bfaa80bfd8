"""The image application."""
