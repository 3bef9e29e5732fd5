"""People with accounts at a coordinator in memory.

ada = enrolled(world, "ada-example", "scientist")
await ada.runs("study.list")
"""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consortium.commands import execute
from consortium.contract.account_kit import parse_account_kit
from consortium.contract.certificates import (
    PeerIdentity,
    account_request,
    certificate_der,
    invitation_name,
    new_signing_key,
    new_tls_key,
    verify_certificate,
)
from consortium.contract.digest import canonical_bytes
from consortium.contract.messages import AccountRequest, EnrolmentGrant
from consortium.contract.study import StudyFile
from consortium.contract.submission import Destination, sign
from consortium.roles import HOME, PersonRole
from tests.fakes.coordinator_home import NAME, Home


@dataclass
class Person:
    """A person's machine: keys, a certificate, and whom it asks."""

    name: str
    world: Home
    tls_key: EllipticCurvePrivateKey = field(repr=False)
    signing_key: Ed25519PrivateKey = field(repr=False)
    certificate_pem: bytes = b""

    @property
    def peer(self) -> PeerIdentity:
        """As the wire reads the certificate."""
        authority = self.world.coordinator.home.ca_certificate
        return verify_certificate(certificate_der(self.certificate_pem), authority, datetime.now(UTC))

    @property
    def subject(self) -> str:
        """In the log."""
        return self.world.coordinator.home.pseudonym(self.name)

    def request(self, name: str | None = None) -> bytes:
        """For a certificate of this person's keys."""
        return account_request(
            tls_key=self.tls_key, signing_key=self.signing_key, account=name or self.name, consortium=NAME
        )

    def signs(self, study: StudyFile, **changed: str) -> dict[str, str]:
        """The arguments that say whose study it is."""
        home = self.world.coordinator.home
        here = {"consortium": NAME, "coordinator_signing_key": home.signing_key_hex} | changed
        return asdict(sign(study.digest(), Destination(**here), self.signing_key, now=datetime.now(UTC)))

    async def runs(self, command: str, **arguments: Any) -> dict[str, Any]:
        """A command, as it comes over the wire: the role is that of this moment."""
        caller = self.world.rooms.accounts.caller(self.peer)
        found = json.loads(await execute(self.world.coordinator, command, canonical_bytes(arguments), caller))
        assert isinstance(found, dict)
        return found

    async def submits(self, study: StudyFile) -> dict[str, Any]:
        """A study, signed."""
        return await self.runs("study.submit", document=study.document().decode(), **self.signs(study))


def invited(world: Home, name: str, role: str) -> str:
    """A fresh kit's token."""
    kit, _ = world.rooms.accounts.invite(name, PersonRole(role), HOME)
    return parse_account_kit(kit).token


def enrolled(world: Home, name: str, role: str) -> Person:
    """A person with an account."""
    person = Person(name=name, world=world, tls_key=new_tls_key(), signing_key=new_signing_key())
    request = AccountRequest(account=name, token=invited(world, name, role), request_der=person.request())
    person.certificate_pem = certified(world, request).certificate_pem
    return person


def certified(world: Home, request: AccountRequest) -> EnrolmentGrant:
    """What the coordinator answers to a request from whoever holds the token's kit."""
    return world.rooms.accounts.enrol(request, invitation_name(request.token))
