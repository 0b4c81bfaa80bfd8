"""Checks whether a candidate computes the same as plain eager PyTorch."""
