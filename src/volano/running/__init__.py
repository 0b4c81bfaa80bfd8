"""Takes a run from request to report: plan, processes, references, end."""
