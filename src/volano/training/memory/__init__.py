"""What saves memory in a step: recomputation, offloading, and smaller parts after an error."""
