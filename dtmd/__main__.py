"""`python -m dtmd`, the same as the command `dtmd`."""

from dtmd.cli import main

main()
