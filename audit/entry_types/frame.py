"""What every entry has, and what it has besides: a study, an attempt at a round, the counter of the site that signs it.

Log format section 6.
"""

from dataclasses import dataclass
from typing import ClassVar, TypeAlias, TypeGuard

from audit.errors import EntryRefused
from audit.fields import (
    Actor,
    Digest,
    Instant,
    MaybeDigest,
    MaybeName,
    MaybePositive,
    MaybePseudonym,
    Name,
    Outcome,
    Positive,
    Uuid7,
    rules_of,
)

COORDINATOR = "coordinator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What every entry has. `outcome` is FHIR's: '0' success, '4' minor, '8' serious, '12' major failure."""

    TYPE: ClassVar[str] = ""

    id: Uuid7
    ts: Instant
    actor: Actor = COORDINATOR
    outcome: Outcome = "0"

    def __post_init__(self) -> None:
        for name, rule in rules_of(type(self)).items():
            object.__setattr__(self, name, rule.read(f"{self.TYPE}.{name}", getattr(self, name)))
        if is_signed_by_site(self) != self.actor.startswith("site:"):
            who = "'site:<name>'" if is_signed_by_site(self) else repr(COORDINATOR)
            raise EntryRefused(f"{self.TYPE}.actor", repr(self.actor), who)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyEntry(Entry):
    """An entry about one study."""

    study: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundEntry(StudyEntry):
    """An entry about one attempt at one round."""

    round: Positive
    attempt: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteOwnEntry(Entry):
    """An entry that a site signs, about itself and no study."""

    site_seq: Positive
    site_prev: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStudyEntry(StudyEntry):
    """An entry that a site signs, about a study."""

    site_seq: Positive
    site_prev: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRoundEntry(RoundEntry):
    """An entry that a site signs, about one attempt at one round."""

    site_seq: Positive
    site_prev: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class EitherEntry(Entry):
    """An entry that the coordinator writes about itself, or that a site signs about itself.

    `study` is null where it is about no study in particular; what is null of these three is not written.
    """

    study: MaybeName = None
    site_seq: MaybePositive = None
    site_prev: MaybeDigest = None

    def __post_init__(self) -> None:
        Entry.__post_init__(self)
        if (self.site_seq is None) != (self.site_prev is None):
            raise EntryRefused(f"{self.TYPE}.site_prev", "a counter or a hash alone", "both, or neither")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration(EitherEntry):
    """What people did or decided outside this software. It says who declared it, and not that it is true."""

    NEEDS_DOCUMENT: ClassVar[bool] = False
    on_behalf: MaybePseudonym = None  # the person who recorded it
    document_sha256: MaybeDigest = None  # of the document that says so, which stays where it is
    document_commitment: MaybeDigest = None  # instead, to a document that is kept in a vault and can be erased
    note_commitment: MaybeDigest = None  # to words that are kept there

    def __post_init__(self) -> None:
        EitherEntry.__post_init__(self)
        if self.NEEDS_DOCUMENT and self.document_sha256 is None and self.document_commitment is None:
            raise EntryRefused(
                f"{self.TYPE}.document_sha256", "no document", "the SHA-256 of the document that says so"
            )
        if self.document_sha256 is not None and self.document_commitment is not None:
            # A plain hash beside the salted one would let a document be guessed after it was erased.
            raise EntryRefused(f"{self.TYPE}.document_commitment", "a SHA-256 too", "one of the two")


SITE_SIGNED = (SiteOwnEntry, SiteStudyEntry, SiteRoundEntry)
"""What only a site can say."""
SiteEntry: TypeAlias = SiteOwnEntry | SiteStudyEntry | SiteRoundEntry | EitherEntry


def is_signed_by_site(entry: Entry) -> TypeGuard[SiteEntry]:
    """Whether this entry is its site's: always by its type, or one of either's that has its place in a site's chain."""
    return isinstance(entry, SITE_SIGNED) or (isinstance(entry, EitherEntry) and entry.site_seq is not None)
