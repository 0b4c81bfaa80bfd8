"""What a run saves and how: checkpoints, their parts, weights, and saving beside the loop."""
