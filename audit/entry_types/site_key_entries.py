"""A hospital's planned change of its two signing keys, in its own chain of entries.

What is signed, by whom, and whether it counts is in `audit.site_keys`.
"""

from dataclasses import dataclass
from typing import ClassVar

from audit.entry_types.frame import SiteOwnEntry
from audit.errors import EntryRefused
from audit.fields import EcdsaKey, Instant, Pseudonym, PublicKey, Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteKeysRotated(SiteOwnEntry):
    """The last entry under the old keys: what the site signs after it, it signs with the new ones, in the same chain.

    The entry is signed by the old key, as every entry before it. The three signatures in it are over
    `audit.site_keys.keys_statement`: by a steward of the site, and by each of the new keys.
    """

    TYPE: ClassVar[str] = "site.keys_rotated"
    old_signing_key: PublicKey
    old_ecdsa_key: EcdsaKey
    signing_key: PublicKey
    ecdsa_key: EcdsaKey
    steward: Pseudonym
    steward_key: PublicKey
    at: Instant
    steward_sig: Signature
    signing_sig: Signature
    ecdsa_sig: Signature

    def __post_init__(self) -> None:
        SiteOwnEntry.__post_init__(self)
        for name in ("signing_key", "ecdsa_key"):
            if getattr(self, name) == getattr(self, f"old_{name}"):
                raise EntryRefused(f"{self.TYPE}.{name}", "the key of before", "another key")
