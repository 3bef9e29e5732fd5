"""What left the building, as `site-agent egress` shows it: each thing, and totals of every study."""

from collections.abc import Mapping
from dataclasses import dataclass

from site_agent.egress_log import EgressReading


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressTotal:
    """What left for one study."""

    study: str  # its name, or its digest where nothing was decided about it; empty: what belongs to no single study
    messages: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """Everything that has left, with the names of the studies that were decided about here."""

    log: EgressReading
    names: Mapping[str, str]  # by digest

    def name(self, study_digest: str | None) -> str:
        """A study's name, or the start of its digest."""
        return "" if study_digest is None else self.names.get(study_digest, study_digest[:12])

    def totals(self) -> tuple[EgressTotal, ...]:
        """Messages and bytes of every study, by name."""
        sizes: dict[str, list[int]] = {}
        for line in self.log.lines:
            sizes.setdefault(self.name(line.sent.study_digest), []).append(line.sent.size_bytes)
        return tuple(
            EgressTotal(study=name, messages=len(of), size_bytes=sum(of)) for name, of in sorted(sizes.items())
        )

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "log": {
                "origin": self.log.origin,
                "vkey": self.log.vkey,
                "size": self.log.size,
                "root": self.log.root.hex(),
                "lost_entries": self.log.lost,
            },
            "totals": [
                {"study": one.study, "messages": one.messages, "size_bytes": one.size_bytes} for one in self.totals()
            ],
            "sent": [
                {
                    "leaf": line.leaf,
                    "ts": line.sent.ts,
                    "kind": line.sent.kind,
                    "to": line.sent.to,
                    "study_digest": line.sent.study_digest,
                    "sha256": line.sent.sha256,
                    "size_bytes": line.sent.size_bytes,
                    "approval": line.sent.approval,
                }
                for line in self.log.lines
            ],
        }
