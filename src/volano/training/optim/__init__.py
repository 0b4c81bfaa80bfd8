"""The optimizers of a run, made from the task; Muon; the average of weights."""
