"""``python -m dmstore``: the same as the command."""

from dmstore.cli import main

if __name__ == "__main__":
    main()
