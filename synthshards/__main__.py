"""``python -m synthshards``: the command line."""

from .cli import main

main()
