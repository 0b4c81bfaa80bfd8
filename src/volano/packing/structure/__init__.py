"""Which tasks are alike enough to be one program."""
