"""The language models of transformers, trained further on a person's text."""
