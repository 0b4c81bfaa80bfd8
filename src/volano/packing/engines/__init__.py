"""The ways to run a pack."""
