"""The engines that run a pack."""
