"""`python -m espalier`: the command line."""

from espalier.command_line import main

main()
