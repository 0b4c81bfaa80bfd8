"""Compares plain loops with what Volano does, in turn on this machine."""
