"""The workers that train the trials of a study: this process, others, or a cluster."""
