"""Joining a consortium: the home appears whole or not at all."""

import os
import stat
from datetime import timedelta

import pytest

from consortium.contract import certificates
from consortium.contract.kit import KitExpired, KitUnreadable, write_kit_bytes
from consortium.wire.errors import CallRefused, CoordinatorUnreachable, ServiceRefusal, TlsRefused
from site_agent import enrolment
from site_agent.enrolment import HomeExists, HomeUnwritable, KitMissing, enrol
from site_agent.home import open_home
from site_agent.store import Store
from tests.fakes.site_wire import StudyService, kit_for
from tests.fakes.site_world import ME, NAME, new_authority
from tests.fakes.wire_world import RecordingService, clock, coordinator


@pytest.fixture
async def world():
    async with coordinator(StudyService()) as running:
        yield running


def written(path, world, **changes):
    write_kit_bytes(path, kit_for(world, **changes).to_bytes())
    return path


def nothing_but(tmp_path, *names):
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


async def test_the_home_is_whole_and_its_owners_only(tmp_path, world):
    home = tmp_path / "deep" / "down" / "home"
    identity = await enrol(written(tmp_path / "kit.zip", world), home)
    assert (identity.site, identity.consortium, identity.address) == (ME, NAME, world.address)
    opened = open_home(home)
    assert opened.identity == identity
    assert opened.signing_key.public_key().public_bytes_raw().hex() == identity.signing_key
    holder = certificates.verify_certificate(
        certificates.certificate_der(opened.certificate_pem), opened.ca_certificate, clock()
    )
    assert (holder.spki_sha256.hex(), holder.signing_key.hex()) == (identity.spki_sha256, identity.signing_key)
    assert opened.ecdsa_key.public == holder.ecdsa_key == bytes.fromhex(identity.ecdsa_key)
    names = ["ecdsa.pem", "hedge.key", "signing.pem", "tls.pem"]
    assert sorted(path.name for path in (home / "keys").iterdir()) == names
    assert len({(home / "keys" / name).read_bytes() for name in names}) == 4
    for path in home.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    nothing_but(home.parent, "home")


async def test_only_a_request_left_and_it_is_listed(tmp_path, world):
    await enrol(written(tmp_path / "kit.zip", world), tmp_path / "home")
    (record,) = Store(tmp_path / "home/agent.db").egress()
    assert record.kind == "enrolment-request"
    (request,) = world.service.enrolled
    for name in ("tls.pem", "signing.pem", "ecdsa.pem", "hedge.key"):
        assert (tmp_path / "home/keys" / name).read_bytes() not in request.request_der


async def test_two_hospitals_have_nothing_in_common(tmp_path, world):
    homes = [await enrol(written(tmp_path / f"{n}.zip", world), tmp_path / f"home{n}") for n in (1, 2)]
    assert homes[0].signing_key != homes[1].signing_key
    assert homes[0].ecdsa_key != homes[1].ecdsa_key
    assert homes[0].spki_sha256 != homes[1].spki_sha256


async def test_a_home_that_is_there_is_left_alone(tmp_path, world):
    kit = written(tmp_path / "kit.zip", world)
    (tmp_path / "home").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("home", "dangling"):
        with pytest.raises(HomeExists) as caught:
            await enrol(kit, tmp_path / name)
        assert "--home" in caught.value.advice()
    assert world.service.enrolled == []
    assert list((tmp_path / "home").iterdir()) == []


async def test_kits_that_are_no_use(tmp_path, world):
    with pytest.raises(KitMissing):
        await enrol(tmp_path / "kit.zip", tmp_path / "home")
    expired = written(tmp_path / "old.zip", world, expires=clock() - timedelta(minutes=1))
    with pytest.raises(KitExpired):
        await enrol(expired, tmp_path / "home")
    altered = bytearray(written(tmp_path / "kit.zip", world).read_bytes())
    altered[len(altered) // 2] ^= 1
    (tmp_path / "altered.zip").write_bytes(altered)
    with pytest.raises(KitUnreadable):
        await enrol(tmp_path / "altered.zip", tmp_path / "home")
    nothing_but(tmp_path, "old.zip", "kit.zip", "altered.zip")
    assert world.service.enrolled == []


async def test_the_coordinator_says_no(tmp_path, world):
    world.service.failing["enrol"] = ServiceRefusal("the token was used", advice="Ask for a new kit.")
    with pytest.raises(CallRefused) as caught:
        await enrol(written(tmp_path / "kit.zip", world), tmp_path / "home")
    assert caught.value.advice() == "Ask for a new kit."
    nothing_but(tmp_path, "kit.zip")


async def test_nobody_there_or_somebody_else(tmp_path, world):
    kit = written(tmp_path / "away.zip", world, address="127.0.0.1:1")
    with pytest.raises(CoordinatorUnreachable):
        await enrol(kit, tmp_path / "home")
    kit = written(tmp_path / "wrong.zip", world, authority=new_authority())
    with pytest.raises(TlsRefused):
        await enrol(kit, tmp_path / "home")
    nothing_but(tmp_path, "away.zip", "wrong.zip")


async def test_a_disk_that_is_full_is_found_before_the_token_is_used(tmp_path, world, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(enrolment, "write_private", full)
    with pytest.raises(HomeUnwritable) as caught:
        await enrol(written(tmp_path / "kit.zip", world), tmp_path / "home")
    assert "No space left" in str(caught.value)
    assert "again" in caught.value.advice()
    assert world.service.enrolled == []
    nothing_but(tmp_path, "kit.zip")


async def test_a_folder_that_cannot_be(tmp_path, world):
    kit = written(tmp_path / "kit.zip", world)
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeUnwritable):
        await enrol(kit, tmp_path / "file" / "home")
    assert world.service.enrolled == []


async def test_a_home_that_appeared_meanwhile_is_not_written_over(tmp_path):
    class Racing(RecordingService):
        async def enrol(self, peer, request):
            (tmp_path / "home").mkdir()
            (tmp_path / "home" / "mine").write_text("")
            return await super().enrol(peer, request)

    async with coordinator(Racing()) as world:
        with pytest.raises(HomeUnwritable):
            await enrol(written(tmp_path / "kit.zip", world), tmp_path / "home")
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["mine"]
