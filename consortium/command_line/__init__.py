"""`consortium`: groups of commands, each as it is typed; `consortium/cli.py` puts them together."""
