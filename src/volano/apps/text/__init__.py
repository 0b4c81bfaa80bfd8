"""The text application: language models, and classes of texts."""
