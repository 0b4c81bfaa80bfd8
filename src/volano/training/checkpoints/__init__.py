"""The saving of a run: checkpoints, their parts, weights, and saving beside the loop."""
