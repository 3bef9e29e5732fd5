"""The kit of an account: one JSON file that lets one person's machine enrol once.

It says whom to dial, which authority to believe, the account's name and its one-time token, and carries a certificate
with its key for the one call that enrols. Token and key make it a secret until it is used; the account's own keys are
made where it is used, and never leave.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from consortium.contract.certificates import CONSORTIUM_NAME_MAX, Issued, consortium_of, load_authority_certificate
from consortium.contract.digest import canonical_bytes
from consortium.contract.kit import KitExpired, KitUnreadable, require_invitation, split_address
from consortium.contract.names import is_digest, is_name

SCHEMA: Literal["consortium/account-kit/v2"] = "consortium/account-kit/v2"
FORMER_SCHEMA = "consortium/account-kit/v1"
"""Of releases that enrolled over a port of its own: such a kit has no certificate, so nobody hears who holds it."""
ACCOUNT_KIT_BYTES_MAX = 32 * 1024


class AccountKit(BaseModel):
    """What a person's machine needs to enrol an account, and to know whom it enrolled with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_name: Literal["consortium/account-kit/v2"] = Field(alias="schema")
    consortium: str = Field(max_length=CONSORTIUM_NAME_MAX)
    address: str = Field(max_length=300)  # HOST:PORT of the coordinator, mutual TLS
    ca_pem: str = Field(max_length=16 * 1024)
    account: str = Field(max_length=40)
    role: str = Field(max_length=16)  # for the person to read; what counts is the coordinator's table
    token: str = Field(pattern=r"^[A-Za-z0-9_-]{16,256}$", repr=False)
    invitation_pem: str = Field(max_length=16 * 1024)  # a certificate, for the one call that enrols
    invitation_key_pem: str = Field(max_length=4096, repr=False)
    coordinator_signing_key: str = Field(max_length=64)
    expires: AwareDatetime

    @property
    def invitation(self) -> Issued:
        """What the call that enrols is made with."""
        return Issued(certificate_pem=self.invitation_pem.encode(), key_pem=self.invitation_key_pem.encode())

    def require_fresh(self, now: datetime) -> None:
        """Raises KitExpired once the kit's time is over."""
        if now > self.expires:
            raise KitExpired(self.expires, now)

    def to_bytes(self) -> bytes:
        """The file."""
        return canonical_bytes(self.model_dump(mode="json", by_alias=True))


def read_account_kit(path: Path) -> AccountKit:
    """Read a kit; raises KitUnreadable, and OSError if the file is not there."""
    with path.open("rb") as file:
        return parse_account_kit(file.read(ACCOUNT_KIT_BYTES_MAX + 1))


def parse_account_kit(data: bytes) -> AccountKit:
    """A kit from the bytes of its file; raises KitUnreadable."""
    if len(data) > ACCOUNT_KIT_BYTES_MAX:
        raise KitUnreadable("file", found=f"more than {ACCOUNT_KIT_BYTES_MAX} bytes", allowed="a kit of an account")
    try:
        kit = AccountKit.model_validate(_current(json.loads(data)), strict=False)
        authority = load_authority_certificate(kit.ca_pem.encode())
        split_address(kit.address)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "kit"
        raise KitUnreadable(where, found=first["msg"], allowed=f"a {SCHEMA} record") from None
    except (ValueError, RecursionError) as error:
        raise KitUnreadable("file", found=str(error)[:120], allowed=f"a {SCHEMA} record") from None
    if not is_name(kit.account) or not is_digest(kit.coordinator_signing_key):
        raise KitUnreadable("account", found="no name, or no key of a coordinator", allowed="both")
    if consortium_of(authority) != kit.consortium:
        raise KitUnreadable("ca_pem", found=f"an authority of {consortium_of(authority)}", allowed=kit.consortium)
    require_invitation(kit.invitation, kit.ca_pem.encode(), token=kit.token, expires=kit.expires)
    return kit


def _current(record: Any) -> Any:
    """The record, unless an earlier release wrote it: then KitUnreadable says so."""
    if isinstance(record, dict) and record.get("schema") == FORMER_SCHEMA:
        found = f"a kit that an earlier release made ({FORMER_SCHEMA}), with no certificate to enrol with"
        raise KitUnreadable("schema", found=found, allowed=SCHEMA)
    return record
