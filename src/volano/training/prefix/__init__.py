"""The frozen prefix of a model: what it computes of an example is kept, not computed again."""
