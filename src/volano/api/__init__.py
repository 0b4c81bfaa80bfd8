"""The verbs behind the public door."""
