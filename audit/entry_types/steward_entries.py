"""What a hospital's steward signs with a key of their own: decisions about studies, and whose key it is.

The statements that are signed, and who may sign them, are in `audit.stewards`.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from audit.entry_types.frame import SiteOwnEntry
from audit.errors import EntryRefused
from audit.fields import Each, Instant, Json, Line, Optional, Pattern, Pseudonym, PublicKey, Signature, rules_of

SIGNATURES_MAX = 3
"""Stewards of one hospital that sign one decision, at most."""

Decided: TypeAlias = Annotated[str, Pattern(r"approved|rejected|withdrawn", "'approved', 'rejected' or 'withdrawn'")]


@dataclass(frozen=True, slots=True, kw_only=True)
class StewardSignature:
    """One steward's word about one study: what was decided, in which words, when; signed with the steward's key.

    `sig` is over `audit.stewards.decision_statement`, which has the log, the site, the study and its digest in it too.
    """

    steward: Pseudonym
    key: PublicKey
    decision: Decided
    words: Line
    at: Instant
    sig: Signature


class SignatureRule:
    """Reads and writes one `StewardSignature`; other keys are refused."""

    def read(self, path: str, value: object) -> StewardSignature:
        """The signature, which is looked at for its shape alone."""
        if isinstance(value, StewardSignature):
            value = self.write(value)
        rules = rules_of(StewardSignature)
        if not isinstance(value, dict) or set(value) != set(rules):
            raise EntryRefused(path, repr(value)[:120], f"an object with {', '.join(sorted(rules))}")
        return StewardSignature(**{name: str(rule.read(f"{path}.{name}", value[name])) for name, rule in rules.items()})

    def write(self, value: object) -> Json:
        """An object."""
        assert isinstance(value, StewardSignature)
        return {name: getattr(value, name) for name in rules_of(StewardSignature)}


MaybeSigned: TypeAlias = Annotated[
    tuple[StewardSignature, ...] | None, Optional(Each(SignatureRule(), most=SIGNATURES_MAX, least=1))
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StewardKeyEntry(SiteOwnEntry):
    """A steward's key comes or goes. `sig` is over `audit.stewards.key_statement`, by the key `signed_by`."""

    steward: Pseudonym
    key: PublicKey
    signed_by: PublicKey
    at: Instant
    sig: Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class StewardEnrolled(StewardKeyEntry):
    """From now on this key may sign decisions. A steward of before signed for it; the first one signs for itself."""

    TYPE: ClassVar[str] = "steward.enrolled"


@dataclass(frozen=True, slots=True, kw_only=True)
class StewardRemoved(StewardKeyEntry):
    """This key may sign nothing any more, and never will again."""

    TYPE: ClassVar[str] = "steward.removed"
