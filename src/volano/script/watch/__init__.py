"""A script in a child process: how it is started there, watched and stopped."""
