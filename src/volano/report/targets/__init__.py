"""The report on labels and numbers."""
