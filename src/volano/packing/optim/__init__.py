"""The optimizer updates of all members of a pack at once."""
