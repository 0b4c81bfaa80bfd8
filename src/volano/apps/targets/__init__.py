"""The kinds of targets: one class, several labels, or numbers."""
