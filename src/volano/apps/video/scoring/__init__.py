"""How good a model of clips is: predicted frames, and distances of generated clips with a test of
that ruler."""
