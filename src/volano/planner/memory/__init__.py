"""Predicts how much memory a step holds, from a trace under fake tensors."""
