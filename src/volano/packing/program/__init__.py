"""A member's step as a program over stacked tensors."""
