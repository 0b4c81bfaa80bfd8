"""Who trains the trials of a study: this process, others, or a cluster."""
