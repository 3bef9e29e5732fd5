"""`python -m consortium` is `consortium`."""

from consortium.cli import main

main()
