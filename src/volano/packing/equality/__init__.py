"""Whether a pack computes what its members compute alone."""
