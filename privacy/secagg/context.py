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
from privacy.secagg.suites import SUITES, Suite, SuiteName

PROTOCOL = "consortium/secagg/v1"

SITES_MIN = 3
"""With two sites each could subtract its own update from the sum."""
SITES_MAX = 256
"""The largest complete graph of pairs; up to 128 are recommended. Beyond it, participants are divided into groups."""
GROUPED_SITES_MAX = 1024
"""The most participants an attempt in groups can have (section 10)."""
GROUP_SIZE_MAX = SITES_MAX // 2
"""A group has at least `group_size` sites and fewer than twice as many."""

_SITE = re.compile(r"[a-z][a-z0-9-]{1,39}")


def default_threshold(participants: int) -> int:
    """floor(2n/3) + 1: as many dropouts survived as colluding sites tolerated (section 2)."""
    return 2 * participants // 3 + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterEntry:
    """A participant and the keys its certificate binds."""

    site: SiteId
    spki_sha256: bytes  # 32 bytes: the certificate's TLS public key
    signing_key: bytes  # from the same certificate, the one of the suite: Ed25519 (32 bytes) or a P-256 point (65)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlace:
    """Which group of an attempt in groups a context is for (section 10)."""

    whole: bytes  # 32 bytes: the digest of the context of the whole attempt
    beacon: bytes  # 32 bytes: what the groups were drawn with
    number: int  # counted from 1
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What one attempt at one round is about, or one group's part of it."""

    consortium: str
    suite: SuiteName
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
    group_size: int = 0  # the fewest sites of a group; 0: one complete graph of all participants
    group: GroupPlace | None = None  # None for the whole attempt

    @property
    def algorithms(self) -> Suite:
        """The suite of the attempt: its algorithms and its sizes."""
        return SUITES[self.suite]

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
        """Refuse what no honest study asks of one complete graph, before any key exists (sections 2, 3 and 5).

        Raises:
            ContextRefused: which field, what was found, what is allowed.
            EncodingRefused, EncodingOverflow: from `Layout.check` for the whole roster.
        """
        # 10: everybody with everybody is what the groups are there to avoid, and nobody may be led past the beacon.
        if bool(self.group_size) != (self.group is not None):
            raise ContextRefused("group", "an attempt in groups as one graph", "a group that a beacon has drawn")
        if self.group is not None:
            self._check_group(self.group)
        self._check(SITES_MAX)

    def check_whole(self) -> None:
        """The same for an attempt in groups, before the groups exist (section 10); raises as `check`."""
        size = self.group_size
        if self.group is not None or not SITES_MIN <= size <= GROUP_SIZE_MAX:
            raise ContextRefused("group_size", str(size), f"{SITES_MIN} to {GROUP_SIZE_MAX}, before groups are drawn")
        self._check(GROUPED_SITES_MAX)
        # 10: with fewer than this left there would be no group of the size that was promised.
        if self.required < size:
            raise ContextRefused("group_size", str(size), f"at most {self.required}, the sites that a sum needs")

    def _check_group(self, group: GroupPlace) -> None:
        n, size = len(self.roster), self.group_size
        if not size <= n < 2 * size:
            raise ContextRefused("participants", f"{n} in a group", f"{size} to {2 * size - 1}")
        if not 1 <= group.number <= group.count <= GROUPED_SITES_MAX // size:
            raise ContextRefused("group", f"{group.number} of {group.count}", f"1 to {GROUPED_SITES_MAX // size}")
        for value in (group.whole, group.beacon):
            if len(value) != HASH_BYTES:
                raise ContextRefused("group", f"a hash of {len(value)} bytes", f"{HASH_BYTES} bytes")

    def _check(self, sites_max: int) -> None:
        n = len(self.roster)
        # 2: with n = 2 a sum is one subtraction away from the other site's update.
        if not SITES_MIN <= n <= sites_max:
            raise ContextRefused("participants", str(n), f"{SITES_MIN} to {sites_max}")
        for entry in self.roster:
            if not _SITE.fullmatch(entry.site) or entry.site == COORDINATOR:
                raise ContextRefused("site name", repr(entry.site), "a-z, 0-9 and '-', and not 'coordinator'")
            # 4: one suite for all, and a signing key of that suite from everyone.
            sizes = ((entry.spki_sha256, HASH_BYTES), (entry.signing_key, self.algorithms.signing_key_bytes))
            for value, size in sizes:
                if len(value) != size:
                    raise ContextRefused(f"key of {entry.site}", f"{len(value)} bytes", f"{size} bytes")
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
        """SHA-256 of the canonical encoding of every field, with protocol version and suite.

        The fields about groups are in it for an attempt in groups and for each of its groups, and not otherwise.
        """
        record: dict[str, object] = {
            "protocol": PROTOCOL,
            "suite": self.algorithms.label,
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
        if self.group_size:
            record["group_size"] = self.group_size
        if self.group is not None:
            place = self.group
            record["group"] = [place.whole.hex(), place.beacon.hex(), place.number, place.count]
        return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).digest()
