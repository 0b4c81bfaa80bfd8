"""The steps that are compiled or recorded: what a device runs instead of single operations."""
