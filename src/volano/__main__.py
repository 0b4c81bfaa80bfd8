"""Runs ``volano`` for ``python -m volano``."""

from volano.cli.entry import main

if __name__ == "__main__":
    main()
