"""`python -m gradlab.cli`."""

from gradlab.cli import main

main()
