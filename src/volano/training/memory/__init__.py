"""The means of saving memory in a step: recomputation, offloading, and smaller parts after an
error."""
