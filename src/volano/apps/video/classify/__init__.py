"""The classification of clips."""
