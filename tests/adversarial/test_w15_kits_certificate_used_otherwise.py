"""W-15: the certificate of a kit is used for more than the one call that enrols, or another certificate for that call.

A kit's certificate lets its holder speak at the coordinator's one port. Whoever got hold of a kit, or of one that is
used, taken back or over, must get no further with it than the kit itself goes; and a stolen certificate of a hospital
or a person must not enrol anybody.
Held by: the roles of each method in `wire/server.py` and of `log_server.py`; `invitations.of_another_kit`, in
`Sites.enrol` and `Accounts.enrol`; `invitations.require_good`, asked before the call is read.

Tried: rows w15 of `mutations.py`: each test failed with its check taken out.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from consortium.contract.account_kit import parse_account_kit
from consortium.contract.certificates import Issued, new_signing_key, new_tls_key, private_pem
from consortium.contract.kit import Kit, parse_kit
from consortium.contract.messages import AccountRequest
from consortium.roles import HOME, PersonRole
from consortium.wire import codec
from consortium.wire import consortium_pb2 as pb
from consortium.wire.client import CoordinatorClient, _answered, _messages, enrol, enrol_account
from consortium.wire.errors import CallRefused
from tests.fakes.coordinator_home import new_hospital
from tests.fakes.https_reader import served, stranger
from tests.fakes.people import Person, enrolled
from tests.fakes.raw_tls import first_bytes
from tests.fakes.scripted_site import World, serving
from tests.fakes.wire_world import clock, coordinator, pki

AMBER, BIRCH = "amber-clinic", "birch-hospital"
SERVICES = pb.DESCRIPTOR.services_by_name


def methods(service: str) -> list[Any]:
    return list(SERVICES[service].methods)


async def called(client: CoordinatorClient, method: Any, data: bytes = b"") -> None:
    """The method, whatever it is, with one message."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    sends = "stream" if method.client_streaming else "unary"
    gets = "stream" if method.server_streaming else "unary"
    start = getattr(client._line, f"{sends}_{gets}")(path)
    call = start() if method.client_streaming else start(data)
    if method.server_streaming:
        async for _ in _messages(call):
            pass
    else:
        await _answered(call)


async def refused_for_its_role(method: Any) -> None:
    async with coordinator() as world, world.connect(credentials=pki().invitation()) as client:
        with pytest.raises(CallRefused, match="wrong role"):
            await called(client, method)
    assert world.service.peers == []
    assert world.service.turned == [(None, method.name, "CertificateRefused")]  # written down as others are


@pytest.mark.parametrize("method", methods("Coordinator"), ids=lambda method: method.name)
async def test_any_other_call_of_a_site(method: Any) -> None:
    await refused_for_its_role(method)


@pytest.mark.parametrize("method", methods("Operator"), ids=lambda method: method.name)
async def test_any_other_call_of_a_person(method: Any) -> None:
    await refused_for_its_role(method)


def test_there_is_no_service_that_is_not_tried() -> None:
    assert set(SERVICES) == {"Coordinator", "Operator", "Enrolment"}


async def test_the_log_over_https(tmp_path: Path) -> None:
    async with (
        served(tmp_path, members=True) as (_, server),
        stranger(server, tmp_path, own=pki().invitation()) as reader,
    ):
        found = await reader.get("/checkpoint")
    assert (found.status, b"wrong role" in found.body, b"\n1\n" in found.body) == (403, True, False)


def kit_of(world: World, site: str) -> Kit:
    return parse_kit(world.home.sites.invite(site)[0])


@asynccontextmanager
async def holding(world: World, own: Issued) -> AsyncIterator[CoordinatorClient]:
    """Whoever has this certificate and its key."""
    ca_pem = world.home.coordinator.home.ca_pem
    async with await CoordinatorClient.connect(world.address, ca_pem, own.certificate_pem, own.key_pem) as client:
        yield client


async def test_another_hospitals_invitation(tmp_path: Path) -> None:
    """Two kits, one copied whole and of the other the token alone; or one kit, for another name."""
    async with serving(tmp_path) as world:
        amber, birch, ca_pem = kit_of(world, AMBER), kit_of(world, BIRCH), world.home.coordinator.home.ca_pem
        request = world.home.request(new_hospital(BIRCH), birch.token)
        with pytest.raises(CallRefused, match="not one of the kit whose certificate was shown"):
            await enrol(world.address, ca_pem, amber.invitation, request)
        own_token = world.home.request(new_hospital(BIRCH), amber.token)
        with pytest.raises(CallRefused, match="not one this consortium gave to this site"):
            await enrol(world.address, ca_pem, amber.invitation, own_token)
        assert world.home.sites.all() == ()
        assert [body["reason"].partition(":")[0] for body in world.home.bodies("auth.failed")] == ["enrolment"] * 2
        await enrol(world.address, ca_pem, birch.invitation, request)  # and it was not spent


async def test_another_persons_invitation(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        home, accounts = world.home.coordinator.home, world.home.rooms.accounts
        ada, eve = (
            parse_account_kit(accounts.invite(name, PersonRole.LEAD, HOME)[0]) for name in ("ada-lead", "eve-lead")
        )
        person = Person(name="eve-lead", world=world.home, tls_key=new_tls_key(), signing_key=new_signing_key())
        request = AccountRequest(account="eve-lead", token=eve.token, request_der=person.request())
        with pytest.raises(CallRefused, match="not one of the kit whose certificate was shown"):
            await enrol_account(world.address, home.ca_pem, ada.invitation, request)
        hospital = world.home.request(new_hospital(AMBER), ada.token)  # nor does a person's kit enrol a hospital
        with pytest.raises(CallRefused, match="not one this consortium gave to this site"):
            await enrol(world.address, home.ca_pem, ada.invitation, hospital)
        assert (accounts.all(), world.home.sites.all()) == ((), ())
        await enrol_account(world.address, home.ca_pem, eve.invitation, request)


@pytest.mark.parametrize("why", ["used", "over", "taken back"])
@pytest.mark.parametrize("whose", ["hospital", "person"])
async def test_a_kit_that_is_not_good_any_more(tmp_path: Path, whose: str, why: str) -> None:
    """Over a connection that was made before, and over another one: nothing of what it sends is even read."""
    async with serving(tmp_path) as world:
        home, rooms = world.home, world.home.rooms
        if whose == "hospital":
            kit = kit_of(world, AMBER)
            own, request = kit.invitation, home.request(new_hospital(AMBER), kit.token)
            method, data = SERVICES["Enrolment"].methods_by_name["Enrol"], codec.encode_enrolment_request(request)
        else:
            account = parse_account_kit(rooms.accounts.invite("ada-lead", PersonRole.LEAD, HOME)[0])
            person = Person(name="ada-lead", world=home, tls_key=new_tls_key(), signing_key=new_signing_key())
            asked = AccountRequest(account="ada-lead", token=account.token, request_der=person.request())
            own, data = account.invitation, codec.encode_account_request(asked)
            method = SERVICES["Enrolment"].methods_by_name["EnrolAccount"]
        async with holding(world, own) as client:
            if why == "used":
                await called(client, method, data)
            elif why == "over":
                home.sites.clock = lambda: datetime.now(UTC) + timedelta(hours=73)
            elif whose == "hospital":
                home.sites.revoke(AMBER)
            else:
                rooms.accounts.revoke("ada-lead", HOME)
            words = "has expired" if why == "over" else "used before, or is not good any more"
            for again in (data, b""):
                with pytest.raises(CallRefused, match=f"this kit enrols nobody: the token .*{words}") as caught:
                    await called(client, method, again)
        assert "invite" in caught.value.advice()
        async with holding(world, own) as client:
            with pytest.raises(CallRefused, match="this kit enrols nobody"):
                await called(client, method, data)
        assert home.bodies("auth.failed")[0]["reason"].startswith("enrolment: the token ")
        assert len(home.sites.all()) == (why == "used" and whose == "hospital")
        assert len(rooms.accounts.all()) == (why == "used" and whose == "person")


async def test_a_kits_certificate_ends_with_the_kit(tmp_path: Path) -> None:
    """Then not even the handshake is done: it is no longer than the token's time."""
    minute = timedelta(minutes=1)
    over = pki().invitation(now=clock() - 4 * minute, valid_for=minute)
    async with coordinator() as world:
        assert await first_bytes(world.server.port, tmp_path, own=pki().invitation())
        try:
            heard = await first_bytes(world.server.port, tmp_path, own=over)
        except OSError:
            heard = b""
    assert heard == b""


@pytest.mark.parametrize("stolen", ["site", "account", "operator"])
async def test_a_stolen_certificate_enrols_nobody(tmp_path: Path, stolen: str) -> None:
    """Not even with the token of a kit that is good: that kit's certificate is wanted, and its key."""
    async with serving(tmp_path) as world:
        home, kit = world.home.coordinator.home, kit_of(world, BIRCH)
        amber, ada = world.home.enrol(AMBER), enrolled(world.home, "ada-lead", "lead")
        operator_key, operator_pem = home.operator_pem
        own = {
            "site": Issued(certificate_pem=amber.certificate_pem, key_pem=amber.tls_key_pem),
            "account": Issued(certificate_pem=ada.certificate_pem, key_pem=private_pem(ada.tls_key)),
            "operator": Issued(certificate_pem=operator_pem, key_pem=operator_key),
        }[stolen]
        request = world.home.request(new_hospital(BIRCH), kit.token)
        with pytest.raises(CallRefused, match="wrong role"):
            await enrol(world.address, home.ca_pem, own, request)
        async with holding(world, own) as client:
            with pytest.raises(CallRefused, match="wrong role"):
                await called(client, SERVICES["Enrolment"].methods_by_name["EnrolAccount"])
        assert [row.site for row in world.home.sites.all()] == [AMBER]
        failed = [body["reason"] for body in world.home.bodies("auth.failed")]
        assert failed == [f"{name}: the certificate was refused: wrong role" for name in ("Enrol", "EnrolAccount")]
        await enrol(world.address, home.ca_pem, kit.invitation, request)
