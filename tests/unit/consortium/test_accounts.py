"""People's accounts: invited once, enrolled once, renewed for the same keys, and what the log says of them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from consortium.commands import CommandRefused
from consortium.contract.account_kit import parse_account_kit
from consortium.contract.certificates import Role, new_signing_key, new_tls_key
from consortium.contract.kit import KitUnreadable
from consortium.contract.messages import AccountRequest
from consortium.database import account_invitations
from consortium.errors import AccessDenied, AccountConflict, AccountUnknown, EnrolmentRefused
from consortium.roles import HOME, PersonRole, RoleRefused
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.people import Person, certified, enrolled, invited
from tests.fakes.small_study import small_study


async def test_an_account_from_its_invitation_to_its_end(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        lead = enrolled(world, "lea-lead", "lead")
        assert (lead.peer.role, lead.peer.name) == (Role.ACCOUNT, "lea-lead")
        assert lead.peer.not_after - datetime.now(UTC) <= timedelta(days=30)
        kit = await lead.runs("account.invite", account="ada-example", role="scientist")
        assert '"ada-example"' in kit["kit"]
        ada = enrolled(world, "ada-example", "scientist")  # a newer kit; the first is void
        (row, _) = (await lead.runs("account.list"))["accounts"]
        assert (row["account"], row["role"], row["state"]) == ("ada-example", "scientist", "enrolled")

        await ada.submits(small_study())
        with pytest.raises(RoleRefused):
            await ada.runs("audit.log", start=0)
        await lead.runs("account.role", account="ada-example", role="auditor")
        assert (await ada.runs("audit.log", start=0))["size"] > 0  # at the very next call, with the same certificate
        with pytest.raises(RoleRefused):
            await ada.submits(small_study(name="second-study"))
        await lead.runs("account.revoke", account="ada-example")
        with pytest.raises(AccessDenied, match="revoked"):
            await ada.runs("study.list")
        with pytest.raises(AccountUnknown):
            await lead.runs("account.role", account="ada-example", role="lead")

        changes = [
            (one["role"], one["change"], one["on_behalf"] == lead.subject)
            for one in world.bodies("role.changed")
            if one["person"] == ada.subject
        ]
        assert changes == [
            ("scientist", "given", True),
            ("scientist", "given", False),
            ("scientist", "taken", True),
            ("auditor", "given", True),
            ("auditor", "taken", True),
        ]
        key = ada.signing_key.public_key().public_bytes_raw().hex()
        assert [(one["person"], one["signing_key"]) for one in world.bodies("account.enrolled")][1] == (
            ada.subject,
            key,
        )
        assert "ada-example" not in str(world.log())


async def test_a_kit_is_good_once_for_its_account_and_for_a_while(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        person = Person(name="ada-example", world=world, tls_key=new_tls_key(), signing_key=new_signing_key())
        token = invited(world, "ada-example", "auditor")

        def enrol(token: str, name: str = "ada-example", person: Person = person) -> None:
            request = AccountRequest(account=name, token=token, request_der=person.request(name))
            certified(world, request)

        with pytest.raises(EnrolmentRefused, match="not one this consortium gave"):
            enrol("0" * 64)
        with pytest.raises(EnrolmentRefused, match="to this account"):
            enrol(token, "eve-example")
        with pytest.raises(Exception, match="a request for"):
            certified(
                world, AccountRequest(account="ada-example", token=token, request_der=person.request("eve-example"))
            )
        enrol(token)
        with pytest.raises(EnrolmentRefused, match="used before"):
            enrol(token)
        with pytest.raises(AccountConflict, match="has an account"):
            invited(world, "ada-example", "lead")
        late = invited(world, "eve-example", "lead")
        with world.rooms.database.transaction() as connection:
            connection.execute(sa.update(account_invitations).values(expires_at=0.0))
        with pytest.raises(EnrolmentRefused, match="expired"):
            enrol(late, "eve-example")
        with pytest.raises(EnrolmentRefused, match="keys are in use"):
            enrol(invited(world, "eve-example", "lead"), "eve-example")
        with pytest.raises(AccountConflict, match="cannot name"):
            invited(world, "Ada Example", "lead")
        assert len(world.bodies("auth.failed")) == 5


async def test_renewing_is_for_oneself_and_for_the_same_keys(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        ada = enrolled(world, "ada-example", "auditor")
        renewed = await ada.runs("account.renew", request=ada.request().hex(), account="lea-lead")
        assert renewed["certificate"].encode() != ada.certificate_pem
        ada.certificate_pem = renewed["certificate"].encode()
        assert (await ada.runs("account.list"))["accounts"][0]["account"] == "ada-example"
        other = Person(name="ada-example", world=world, tls_key=new_tls_key(), signing_key=ada.signing_key)
        with pytest.raises(AccountConflict, match="other keys"):
            await ada.runs("account.renew", request=other.request().hex())
        with pytest.raises(CommandRefused, match="hexadecimal"):
            await ada.runs("account.renew", request="zz")


async def test_an_erased_person_has_no_account_and_no_name_here(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        lead, ada = enrolled(world, "lea-lead", "lead"), enrolled(world, "ada-example", "auditor")
        before = ada.subject
        await lead.runs("audit.erase", payloads=[], subject="ada-example", by="somebody else")
        with pytest.raises(AccessDenied):
            await ada.runs("status")
        assert [row.account for row in world.rooms.accounts.all()] == ["lea-lead"]
        assert world.coordinator.home.vault.known("ada-example") is None
        (erased,) = world.bodies("erasure.executed")
        assert (erased["subject"], erased["on_behalf"]) == (before, lead.subject)  # not "somebody else"


async def test_a_kit_that_nobody_used_can_be_taken_back(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        token = invited(world, "ada-example", "operator")
        world.rooms.accounts.revoke("ada-example", HOME)
        person = Person(name="ada-example", world=world, tls_key=new_tls_key(), signing_key=new_signing_key())
        with pytest.raises(EnrolmentRefused, match="not good any more"):
            certified(world, AccountRequest(account="ada-example", token=token, request_der=person.request()))
        with pytest.raises(AccountUnknown):
            world.rooms.accounts.change_role("ada-example", PersonRole.LEAD, HOME)


def test_a_kit_of_an_account_carries_a_certificate_of_its_own(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        kits = [world.rooms.accounts.invite(name, PersonRole.LEAD, HOME)[0] for name in ("ada-example", "eve-example")]
    kit, other = (json.loads(data) for data in kits)
    found = parse_account_kit(kits[0])
    assert found.token not in repr(found)
    assert "PRIVATE" not in repr(found)
    for changed, words in (
        ({"schema": "consortium/account-kit/v1"}, r"earlier release made \(consortium/account-kit/v1\)"),
        ({"schema": "consortium/account-kit/v3"}, "account-kit/v2"),
        ({"invitation_pem": other["invitation_pem"]}, "another kit"),
        ({"invitation_key_pem": other["invitation_key_pem"]}, "not the certificate's"),
        ({"invitation_key_pem": "x"}, "no such key"),
        ({"invitation_pem": kit["ca_pem"]}, "authority"),
    ):
        with pytest.raises(KitUnreadable, match=words) as caught:
            parse_account_kit(json.dumps({**kit, **changed}).encode())
        assert "account invite" in caught.value.advice()
