"""Updates of all members of a pack at once."""
