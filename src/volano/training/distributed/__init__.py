"""The ranks that train one model together."""
