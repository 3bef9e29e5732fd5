"""Operational logs of both processes: events as facts, on stderr; JSON for programs, colours for people.

A field that is not on the allow-list is dropped: what nobody thought of cannot leak through a log.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

FIELDS = frozenset(
    {
        "event", "level", "timestamp", "exception",
        "study", "round", "attempt", "site", "phase", "kind", "method", "peer", "incident", "state", "outcome",
        "rule", "reason", "advice", "explanation", "version", "consortium", "model", "sites", "survivors",
        "parameters", "fraction", "seconds", "again_in_s", "wanted", "address", "code", "error", "status", "where",
        "errno", "engine", "device", "memory_bytes", "step", "steps", "seconds_left",
    }
)  # fmt: skip


def only_known_fields(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop every field that is not in FIELDS."""
    return {name: value for name, value in event.items() if name in FIELDS}


def log_as_facts() -> None:
    """Configure structlog for this process."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            only_known_fields,
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
