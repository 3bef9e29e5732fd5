"""`python -m site_agent` is `site-agent`."""

from site_agent.entry import main

main()
