"""`python -m site_agent` is `site-agent`."""

from site_agent.cli import main

main()
