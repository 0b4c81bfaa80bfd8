"""The cache of plans that were found before, and their fingerprints."""
