"""The coordinator: enrols hospitals, runs studies, sums masked updates, keeps the log."""

__version__ = "0.1.0"
