"""`site-agent`: groups of commands, each as it is typed; `site_agent/cli.py` puts them together."""
