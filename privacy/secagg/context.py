"""Section 3: the context everything is bound to.

Whatever a site signs or derives in one attempt at a round depends on the digest of this record, so two
sites shown different models, thresholds, rosters or plans produce masks that do not cancel and signatures
that do not verify (Pasquini et al., CCS 2022, model inconsistency).
"""

import hashlib
import json
import re
from dataclasses import dataclass

from privacy.encoding import Layout
from privacy.errors import ContextRefused
from privacy.secagg.messages import COORDINATOR, HASH_BYTES, SiteId

PROTOCOL = "consortium/secagg/v1"
SUITE = "HPKE-MLKEM768-X25519/HKDF-SHA256/AES-256-GCM/Ed25519"

SITES_MIN = 3
"""With two sites each could subtract its own update from the sum."""
SITES_MAX = 128
"""Beyond this the complete graph of pairs gives way to groups, which this version does not have."""

_SITE = re.compile(r"[a-z][a-z0-9-]{1,39}")


def default_threshold(participants: int) -> int:
    """floor(2n/3) + 1: as many dropouts survived as colluding sites tolerated (section 2)."""
    return 2 * participants // 3 + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterEntry:
    """A participant and the keys its certificate binds."""

    site: SiteId
    spki_sha256: bytes  # 32 bytes: the certificate's TLS public key
    signing_key: bytes  # 32 bytes: Ed25519, from the same certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What one attempt at one round is about."""

    consortium: str
    study_hash: bytes
    round: int
    attempt: int
    previous_transcript: bytes  # T3 of the last closed round, 32 zero bytes before the first
    roster: tuple[RosterEntry, ...]  # sorted by site, no site twice
    threshold: int
    minimum: int
    model_hash: bytes
    plan_hash: bytes  # SHA-256 of the signed round plan: DP parameters, deadlines and all else
    layout: Layout

    @property
    def sites(self) -> tuple[SiteId, ...]:
        """The participants, sorted."""
        return tuple(entry.site for entry in self.roster)

    @property
    def required(self) -> int:
        """How many sites must be left in every phase up to the survivor set: max(t, minimum)."""
        return max(self.threshold, self.minimum)

    def entry(self, site: SiteId) -> RosterEntry | None:
        """The roster's line for `site`, or None if it does not take part."""
        return next((entry for entry in self.roster if entry.site == site), None)

    def share_number(self, site: SiteId) -> int:
        """The x-coordinate of the site's shares: its place in the roster, counted from 1. The site takes part."""
        return self.sites.index(site) + 1

    def check(self) -> None:
        """Refuse what no honest study asks for, before any key exists (sections 2, 3 and 5).

        Raises:
            ContextRefused: which field, what was found, what is allowed.
            EncodingRefused, EncodingOverflow: from `Layout.check` for the whole roster.
        """
        n = len(self.roster)
        # 2: with n = 2 a sum is one subtraction away from the other site's update.
        if not SITES_MIN <= n <= SITES_MAX:
            raise ContextRefused("participants", str(n), f"{SITES_MIN} to {SITES_MAX}")
        for entry in self.roster:
            if not _SITE.fullmatch(entry.site) or entry.site == COORDINATOR:
                raise ContextRefused("site name", repr(entry.site), "a-z, 0-9 and '-', and not 'coordinator'")
            for value in (entry.spki_sha256, entry.signing_key):
                if len(value) != HASH_BYTES:
                    raise ContextRefused(f"key of {entry.site}", f"{len(value)} bytes", f"{HASH_BYTES} bytes")
        # 3: one certificate, one key, one vote. A site listed twice would hold two shares of every secret.
        if list(self.sites) != sorted(set(self.sites)):
            raise ContextRefused("roster", "a doubled or unsorted site", "sorted, no site twice")
        for column in ({e.spki_sha256 for e in self.roster}, {e.signing_key for e in self.roster}):
            if len(column) != n:
                raise ContextRefused("roster", "one key under two names", "a different key for every site")
        # 2: safe iff 2t > n + c; with 2t <= n two disjoint sets of sites could unmask two different sums.
        if not n // 2 < self.threshold <= n:
            raise ContextRefused("threshold", f"{self.threshold} of {n}", f"{n // 2 + 1} to {n}")
        if not SITES_MIN <= self.minimum <= n:
            raise ContextRefused("minimum", str(self.minimum), f"{SITES_MIN} to {n}")
        if self.round < 1 or self.attempt < 1:
            raise ContextRefused("round", f"{self.round}, attempt {self.attempt}", "counted from 1")
        for name in ("study_hash", "previous_transcript", "model_hash", "plan_hash"):
            if len(getattr(self, name)) != HASH_BYTES:
                raise ContextRefused(name, f"{len(getattr(self, name))} bytes", f"{HASH_BYTES} bytes")
        self.layout.check(n)

    def digest(self) -> bytes:
        """SHA-256 of the canonical encoding of every field, with protocol version and suite."""
        record = {
            "protocol": PROTOCOL,
            "suite": SUITE,
            "consortium": self.consortium,
            "study": self.study_hash.hex(),
            "round": self.round,
            "attempt": self.attempt,
            "previous_transcript": self.previous_transcript.hex(),
            "roster": [[e.site, e.spki_sha256.hex(), e.signing_key.hex()] for e in self.roster],
            "threshold": self.threshold,
            "minimum": self.minimum,
            "model": self.model_hash.hex(),
            "plan": self.plan_hash.hex(),
            "layout": self.layout.canonical(),
        }
        return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).digest()
