"""`python -m awry` is the `awry` command."""

from monitor.cli.app import main

main()
