"""Predicts a training on many devices that are not here: exchanges, memory, what fits, what is
cheapest."""
