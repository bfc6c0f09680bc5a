"""`python -m bemi` is the command `bemi`."""

from bemi.cli.app import main

if __name__ == "__main__":
    main()
