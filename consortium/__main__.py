"""`python -m consortium` is `consortium`."""

from consortium.entry import main

main()
