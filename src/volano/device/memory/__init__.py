"""The memory of the host: how much there is, and how the C library keeps it."""
