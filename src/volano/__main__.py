"""``python -m volano`` is ``volano``."""

from volano.cli.main import main

if __name__ == "__main__":
    main()
