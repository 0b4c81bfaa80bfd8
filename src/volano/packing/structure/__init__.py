"""Decides which tasks are alike enough to be one program."""
