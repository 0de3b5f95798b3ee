"""`python -m modjax` is the command `modjax`."""

from modjax.cli.main import main

if __name__ == "__main__":
    main()
