"""What is secret and how much leaks: mathematics only.

No socket, file, clock, thread or global generator is reachable from this package.
"""
