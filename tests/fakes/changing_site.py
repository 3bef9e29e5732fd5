"""A hospital that changes its signing keys, as entries: a log of it and of another one, and ways to forge a change.

log = ChangingLog()
log.steward(ADA)
log.change()                      # the next key, signed by all who have to
log.forge("begun anew")           # one of FORGERIES, as the last entry
"""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import entries
from audit.site_keys import SigningKeys, keys_statement
from audit.stewards import key_statement, public_hex, sign
from consortium.record import now_stamp
from privacy.p256 import EcdsaSigner

LOG, SITE, OTHER = "fl.example.org/log", "birch", "cedar"
AT = "2026-11-23T09:00:00.000Z"
PERSON, SOMEBODY = "u:" + "a" * 32, "u:" + "b" * 32
ADA, BEA, THIEF = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))

FORGERIES = (
    "by nobody's steward",
    "in the steward's name",
    "by a steward under another name",
    "by a steward who was removed",
    "by stewards who were begun anew",
    "by the steward of another hospital",
    "for another hospital",
    "in another log",
    "for another key",
    "without the new signing key",
    "without the new ECDSA key",
    "without the old key",
    "of a key that it does not have",
    "of an ECDSA key that it does not have",
    "to a key that it had before",
    "to a key of another hospital",
    "to an ECDSA key that it had before",
    "after it was revoked",
    "while it is suspended",
    "of a key that was changed and enrolled again",
    "of a key that was revoked and enrolled again",
    "by a steward of its own choice after it was enrolled again",
)


@dataclass(frozen=True)
class Pair:
    """Both keys of a hospital."""

    signing: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    ecdsa: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def public(self) -> SigningKeys:
        return SigningKeys(signing=public_hex(self.signing), ecdsa=EcdsaSigner(self.ecdsa).public.hex())


def change_fields(
    old: Pair,
    new: Pair,
    steward: Ed25519PrivateKey = ADA,
    *,
    log: str = LOG,
    site: str = SITE,
    steward_named: str = PERSON,
) -> dict[str, Any]:
    """The fields of a change that everybody signed who has to."""
    values: dict[str, Any] = {"old": old.public, "new": new.public, "steward": steward_named, "at": AT}
    statement = keys_statement(log=log, site=site, **values)
    return {
        "old_signing_key": values["old"].signing,
        "old_ecdsa_key": values["old"].ecdsa,
        "signing_key": values["new"].signing,
        "ecdsa_key": values["new"].ecdsa,
        "steward": values["steward"],
        "steward_key": public_hex(steward),
        "at": AT,
        "steward_sig": sign(steward, statement),
        "signing_sig": sign(new.signing, statement),
        "ecdsa_sig": base64.b64encode(EcdsaSigner(new.ecdsa).sign(statement)).decode(),
    }


def steward_fields(key: Ed25519PrivateKey, by: Ed25519PrivateKey, log: str, site: str, **more: Any) -> dict[str, Any]:
    """The fields by which a steward's key comes or goes."""
    said = {"steward": PERSON, "key": public_hex(key), "at": AT}
    change = more.get("change", "enrolled")
    return {
        **said,
        "signed_by": public_hex(by),
        "sig": sign(by, key_statement(log=log, site=site, change=change, **said)),
    }


class ChangingLog:
    """The entries. Mutable."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.keys = {SITE: Pair(), OTHER: Pair()}
        self.chains = {site: entries.SiteChain(site=site) for site in self.keys}
        for site in self.keys:
            self.enrol(site)
        self.steward(ADA)
        self.steward(BEA, by=ADA)
        self.steward(THIEF, site=OTHER)

    def coordinator(self, kind: type[entries.Entry], **fields: Any) -> None:
        self.lines.append(entries.entry_bytes(kind(**now_stamp(), **fields)))

    def enrol(self, site: str = SITE) -> None:
        said = {"certificate_sha256": "0" * 64, "spki_sha256": "0" * 64}
        self.coordinator(entries.SiteEnrolled, site=site, signing_key=self.keys[site].public.signing, **said)

    def site(
        self, kind: type[entries.SiteEntry], site: str = SITE, signer: Ed25519PrivateKey | None = None, **fields: Any
    ) -> None:
        """The next entry of a hospital, under the key it has."""
        chain = self.chains[site]
        entry = kind(**now_stamp(), actor=f"site:{site}", site_seq=chain.next_seq, site_prev=chain.previous, **fields)
        data = entries.sign_site_entry(entry, signer or self.keys[site].signing)
        self.chains[site] = chain.admit(data, entry)
        self.lines.append(data)

    def steward(self, key: Ed25519PrivateKey, by: Ed25519PrivateKey | None = None, site: str = SITE) -> None:
        """A steward comes."""
        self.site(entries.StewardEnrolled, site, **steward_fields(key, by or key, LOG, site))

    def removes(self, key: Ed25519PrivateKey, by: Ed25519PrivateKey) -> None:
        """A steward goes."""
        self.site(entries.StewardRemoved, **steward_fields(key, by, LOG, SITE, change="removed"))

    def change(self, new: Pair | None = None, **changes: Any) -> Pair:
        """The hospital changes its keys; `changes` are written in place of what would be right."""
        new, old = new or Pair(), self.keys[SITE]
        self.site(entries.SiteKeysRotated, **{**change_fields(old, new), **changes})
        self.keys[SITE] = new
        return new

    def says(self, fields: dict[str, Any], signer: Ed25519PrivateKey | None = None) -> None:
        """A change with these fields, whatever they are."""
        self.site(entries.SiteKeysRotated, signer=signer, **fields)

    def forge(self, how: str) -> None:
        """One of FORGERIES, as the last entry."""
        if not self._forge_words(how) and not self._forge_keys(how):
            self._forge_history(how)

    def _forge_words(self, how: str) -> bool:
        """Signatures that are not there, or of something else."""
        old, new = self.keys[SITE], Pair()
        right, by_thief = change_fields(old, new), change_fields(old, new, THIEF)
        forged = {
            "by nobody's steward": change_fields(old, new, Ed25519PrivateKey.generate()),
            "in the steward's name": {**by_thief, "steward_key": public_hex(ADA)},
            "by a steward under another name": change_fields(old, new, steward_named=SOMEBODY),
            "by the steward of another hospital": by_thief,
            "for another hospital": change_fields(old, new, site=OTHER),
            "in another log": change_fields(old, new, log="another.example.org/log"),
            "for another key": {**change_fields(old, Pair()), "signing_key": new.public.signing},
            "without the new signing key": {**right, "signing_sig": by_thief["steward_sig"]},
            "without the new ECDSA key": {**right, "ecdsa_sig": change_fields(old, Pair())["ecdsa_sig"]},
            "of a key that it does not have": change_fields(Pair(ecdsa=old.ecdsa), new),
            "to a key of another hospital": change_fields(old, Pair(signing=self.keys[OTHER].signing)),
        }
        if how == "without the old key":
            self.says(right, signer=THIEF)
        elif how in forged:
            self.says(forged[how])
        else:
            return False
        return True

    def _forge_keys(self, how: str) -> bool:
        """A second change, to or from a key that is not to be had."""
        first = self.keys[SITE]
        second = {
            "of an ECDSA key that it does not have": lambda now: change_fields(Pair(signing=now.signing), Pair()),
            "to a key that it had before": lambda now: change_fields(now, Pair(signing=first.signing)),
            "to an ECDSA key that it had before": lambda now: change_fields(now, Pair(ecdsa=first.ecdsa)),
        }
        if how not in second:
            return False
        self.change()
        self.says(second[how](self.keys[SITE]))
        return True

    def _forge_history(self, how: str) -> None:
        """What all have signed who have to, and that does not count after what came before."""
        old, new = self.keys[SITE], Pair()
        right, by_thief = change_fields(old, new), change_fields(old, new, THIEF)
        match how:
            case "by a steward who was removed":
                self.removes(ADA, by=BEA)
                self.says(right)
            case "by stewards who were begun anew":
                self.steward(THIEF)
                self.says(by_thief)
            case "after it was revoked":
                self.coordinator(entries.SiteRevoked, site=SITE, reason="stolen")
                self.says(right)
            case "while it is suspended":
                self.coordinator(entries.SiteSuspended, site=SITE, reason="an audit")
                self.says(right)
            case "of a key that was changed and enrolled again":
                self.change()
                self.keys[SITE] = old
                self.enrol()
                self.steward(THIEF)
                self.says(by_thief)
            case "of a key that was revoked and enrolled again":
                self.coordinator(entries.SiteRevoked, site=SITE, reason="stolen")
                self.enrol()
                self.says(right)
            case "by a steward of its own choice after it was enrolled again":
                self.keys[SITE] = Pair()
                self.enrol()
                self.keys[SITE] = old
                self.enrol()
                self.steward(THIEF)
                self.says(by_thief)
            case _:
                raise ValueError(how)

    def records(self) -> list[tuple[int, bytes, dict[str, Any]]]:
        """Leaf, bytes and content of every entry."""
        return [(leaf, data, json.loads(data)) for leaf, data in enumerate(self.lines)]
