"""What an audit of the mechanism found (`mechanism_audit.py`), for whoever reads, signs or sends it; no torch."""

from dataclasses import dataclass
from typing import Any

CONFIDENCE = 1 - 1e-5
"""Chance that every bound holds: there are fewer than 40, and two rest on an approximation with room to spare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check."""

    check: str
    passed: bool
    found: str
    allowed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MechanismAudit:
    """What was measured. All of it is about made-up records, so it may leave the building."""

    findings: tuple[Finding, ...]
    figures: tuple[tuple[str, float | None], ...]  # sorted by name; None where nothing finite was measured
    confidence: float = CONFIDENCE

    @property
    def checks(self) -> tuple[str, ...]:
        """Names of the checks, in order."""
        return tuple(one.check for one in self.findings)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of those that did not hold."""
        return tuple(one.check for one in self.findings if not one.passed)


def audit_fields(study: str, dataset: str, audit: MechanismAudit) -> dict[str, Any]:
    """What a `dp.audited` entry is built from."""
    return {
        "study": study,
        "dataset": dataset,
        "outcome": "8" if audit.failed else "0",
        "checks": audit.checks,
        "failed": audit.failed,
        "figures": audit.figures,
        "confidence": audit.confidence,
    }
