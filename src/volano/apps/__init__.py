"""The applications: each builds Tasks, and knows how to predict with what was learned."""
