"""Predicts how long a step takes, from operations and measured rates."""
