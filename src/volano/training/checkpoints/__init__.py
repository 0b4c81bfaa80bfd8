"""The saving of a run: checkpoints, their parts, weights, and saving while the loop runs."""
