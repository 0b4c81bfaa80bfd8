"""The quality of a model of clips: predicted frames, and distances of generated clips with a test
of that ruler."""
