"""What a serving coordinator says no to, over the real wire: who may connect, upload, download, and when."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consortium.contract.kit import parse_kit
from consortium.contract.messages import Hello, Invitation, VectorHeader, VectorKind, Welcome
from consortium.contract.names import Digest, SiteId
from consortium.training_round import Phase
from consortium.wire import codec
from consortium.wire.client import CoordinatorClient, enrol
from consortium.wire.errors import CallRefused, ConnectionLost, RefusalCode
from privacy.encoding import RingVector
from privacy.secagg import site as secagg
from privacy.secagg.messages import SealedShares, UnmaskShares, UploadHeader
from privacy.secagg.transcript import unmask_payload
from tests.fakes.coordinator_home import granted, new_hospital
from tests.fakes.scripted_site import HELLO, ScriptedSite, World, serving
from tests.fakes.small_study import SITES, first_model, small_study

AMBER, BIRCH, CEDAR, DELTA = SITES


async def refused(call: object) -> CallRefused:
    with pytest.raises(CallRefused) as caught:
        await call  # type: ignore[misc]
    return caught.value


async def test_enrolment_over_the_wire(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        hospital, ca_pem = new_hospital(AMBER), world.home.coordinator.home.ca_pem
        address, kit = f"127.0.0.1:{world.server.port}", parse_kit(world.home.sites.invite(AMBER)[0])
        request = world.home.request(hospital, kit.token)
        grant = await enrol(address, ca_pem, kit.invitation, request)
        granted(hospital, grant.certificate_pem, world.home.coordinator.home.ca_certificate)
        async with world.connect(hospital) as client, client.session(HELLO) as session:
            assert isinstance(await anext(session), Welcome)
        error = await refused(enrol(address, ca_pem, kit.invitation, request))
        assert error.code is RefusalCode.REFUSED
        assert "used before" in str(error)
        assert "invite" in error.advice()


@pytest.mark.parametrize(
    ("version", "protocol"),
    [("0.0.9", 1), ("0.0", 1), ("zero", 1), ("0.1.0", 0 + 1)],
    ids=["old", "short", "odd", "ok"],
)
async def test_an_agent_that_is_too_old_is_told_to_upgrade(tmp_path: Path, version: str, protocol: int) -> None:
    async with serving(tmp_path) as world:
        hospital = world.home.enrol(AMBER)
        hello = Hello(agent_version=version, protocol_version=protocol)
        async with world.connect(hospital) as client:
            if version == "0.1.0":
                async with client.session(hello) as session:
                    assert isinstance(await anext(session), Welcome)
                return
            with pytest.raises(CallRefused, match=r"0\.1\.0") as caught:
                async with client.session(hello) as session:
                    await anext(session)
            assert caught.value.code is RefusalCode.REFUSED
            assert "Upgrade" in caught.value.advice()
        assert world.home.rooms.sessions.connected() == frozenset()


async def test_a_second_agent_with_the_same_identity_ends_the_first_and_its_attempt(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[DELTA].silent[1, 1] = Phase.COLLECTING
        sites[DELTA].stays_away = True
        await world.command("study.start", study=study.id)
        driver = world.home.coordinator.drivers[study.id]
        await world.until(lambda: driver.running is not None and driver.running.phase is Phase.COLLECTING)
        async with world.connect(sites[DELTA].hospital) as client, client.session(HELLO) as session:
            assert isinstance(await anext(session), Welcome)
            await world.until(lambda: bool(sites[DELTA].ended_with))
            (error,) = sites[DELTA].ended_with
            assert isinstance(error, CallRefused)
            assert error.code is RefusalCode.CONFLICT
            assert "another agent" in str(error)
            # The new one knows nothing of the attempt: it is a dropout now, not when the deadline has passed.
            await world.until(lambda: (1, 1, DELTA, "collecting") in world.dropouts(), 5)
            assert DELTA in world.home.rooms.sessions.connected()


async def test_a_revoked_site_is_cut_off_and_stays_out(tmp_path: Path) -> None:
    study = small_study(rounds=1, round_deadline_s=1.0, upload_deadline_s=1.0)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        await world.command("site.revoke", site=BIRCH)
        await world.until(lambda: len(sites[BIRCH].ended_with) >= 2)
        for error in sites[BIRCH].ended_with[:2]:
            assert isinstance(error, CallRefused)
            assert "revoked" in str(error)
        assert BIRCH not in world.home.rooms.sessions.connected()
        sites[BIRCH].stays_away = True
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.home.types().count("round.started") >= 1, 30)
        assert sites[BIRCH].told(Invitation) == []
        denied = {body["rule"] for body in world.home.bodies("authz.denied")}
        assert denied == {"birch-hospital is revoked", "the site is revoked"}  # new calls, and the session it had


# --- uploads ---


async def collecting(world: World) -> tuple[ScriptedSite, UploadHeader]:
    """A round in which CEDAR has masked its update and not uploaded it; returns CEDAR and its upload's header."""
    study = small_study(rounds=1)
    sites = await world.hospitals(study)
    held: asyncio.Future[UploadHeader] = asyncio.get_running_loop().create_future()

    async def hold(upload: UploadHeader, **_: object) -> None:
        held.set_result(upload)
        await asyncio.Event().wait()

    cedar = sites[CEDAR]
    cedar.upload_update = hold  # type: ignore[method-assign]
    await world.command("study.start", study=study.id)
    header = await asyncio.wait_for(held, 60)
    del cedar.__dict__["upload_update"]
    return cedar, header


async def test_an_upload_of_another_size_kind_or_attempt_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        cedar, good = await collecting(world)
        assert cedar.masked is not None
        size_bytes = cedar.masked.nbytes
        shorter = await refused(cedar.upload_update(good, size_bytes=size_bytes - 4))
        assert f"{size_bytes} bytes, not {size_bytes - 4}" in str(shorter)
        larger = await refused(cedar.upload_update(good, size_bytes=2**31))
        assert larger.code is RefusalCode.INVALID
        earlier = await refused(cedar.upload_update(replace(good, context=bytes(32))))
        assert (earlier.code, "over" in str(earlier)) == (RefusalCode.CONFLICT, True)
        forged = await refused(cedar.upload_update(replace(good, signature=bytes(64))))
        assert "signature" in str(forged)
        unknown = await refused(cedar.upload_update(good, study_digest=Digest("ee" * 32)))
        assert "over" in str(unknown)
        unasked = await refused(cedar.upload_model(first_model()))
        assert "nobody asked" in str(unasked)
        assert list((world.home.folder / "uploads").glob(".incoming-*")) == []
        # and the honest one still counts, once
        await cedar.upload_update(good)
        again = await refused(cedar.upload_update(good))
        assert again.code is RefusalCode.CONFLICT


async def test_an_upload_that_comes_when_the_attempt_is_over_leaves_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        cedar, header = await collecting(world)
        await world.command("study.pause", study="small-study")
        await world.until(lambda: world.home.coordinator.drivers["small-study"].running is None)
        error = await refused(cedar.upload_update(header))
        assert "over" in str(error)
        await world.until(lambda: list((world.home.folder / "uploads").iterdir()) == [])


class Slow:
    """An upload of a hospital's masked update that stops after four bytes until it may go on."""

    def __init__(self, cedar: ScriptedSite, header: UploadHeader) -> None:
        assert cedar.masked is not None
        assert cedar.client is not None
        self._data = cedar.masked.tobytes()
        self._begun, self.may_end = asyncio.Event(), asyncio.Event()
        vector = VectorHeader(
            kind=VectorKind.MASKED_UPDATE,
            sha256=header.masked_update_hash,
            size_bytes=len(self._data),
            study_digest=cedar.study.digest(),
            upload=header,
        )
        self.task = asyncio.create_task(cedar.client.upload_vector(vector, self._chunks()))

    async def _chunks(self) -> AsyncIterator[bytes]:
        yield self._data[:4]
        self._begun.set()
        await self.may_end.wait()
        yield self._data[4:]

    async def has_begun(self, world: World) -> None:
        await self._begun.wait()
        await world.until(lambda: bool(world.home.coordinator._uploading))


async def test_an_upload_under_way_when_the_attempt_ends_leaves_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        slow = Slow(*await collecting(world))
        await slow.has_begun(world)
        await world.command("study.pause", study="small-study")
        await world.until(lambda: world.home.coordinator.drivers["small-study"].running is None)
        slow.may_end.set()
        assert "ended while the upload was under way" in str(await refused(slow.task))
        await world.until(lambda: list((world.home.folder / "uploads").iterdir()) == [])


async def test_a_second_upload_takes_the_place_of_one_whose_line_may_be_gone(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        cedar, header = await collecting(world)
        slow = Slow(cedar, header)
        await slow.has_begun(world)
        driver = world.home.coordinator.drivers["small-study"]
        assert driver.half_uploaded(SiteId(CEDAR)) is not None
        await cedar.upload_update(header)
        assert driver.half_uploaded(SiteId(CEDAR)) is None  # it is whole
        slow.may_end.set()
        with pytest.raises((CallRefused, ConnectionLost), match=r"began the upload again|broke"):
            await slow.task


# --- downloads ---


async def test_a_hospital_downloads_what_is_its_studys_and_nothing_else(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "completed")
        outsider = world.home.enrol("zebra-hospital")
        model = world.home.studies.get(study.id).model_digest
        aggregate = Digest(world.history(study)[0]["aggregate_sha256"])
        wanted = [(VectorKind.GLOBAL_MODEL, model), (VectorKind.AGGREGATE, aggregate)]
        async with world.connect(outsider) as client:
            for kind, digest in wanted:
                error = await refused(client.download_vector(kind, digest, 10_000, bytes))
                assert error.code is RefusalCode.NOT_FOUND
            assert await client.list_studies() == ()
        async with world.connect(sites[AMBER].hospital) as client:
            for kind, digest in wanted:
                data = bytearray()
                header = await client.download_vector(kind, digest, 10_000, data.extend)
                assert header.study_digest == study.digest()
                assert len(data) == header.size_bytes
            for kind in (VectorKind.MASKED_UPDATE, VectorKind.INITIAL_MODEL):
                error = await refused(client.download_vector(kind, model, 10_000, bytes))
                assert error.code is RefusalCode.REFUSED
            assert [one.study for one in await client.list_studies()] == [study.id]


async def test_the_watcher_sees_the_study_go_by(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        await world.hospitals(study)
        home = world.home.coordinator.home
        key_pem, certificate_pem = home.operator_pem
        client = await CoordinatorClient.connect(world.address, home.ca_pem, certificate_pem, key_pem)
        async with client:
            states: list[bytes] = []

            async def follow() -> None:
                async for snapshot in client.watch():
                    states.append(snapshot)
                    if b'"state":"completed"' in snapshot:
                        return

            watching = asyncio.create_task(follow())
            await client.execute("study.start", b'{"study":"small-study"}')
            await asyncio.wait_for(watching, 60)
            assert len(states) >= 2


async def test_a_site_that_breaks_a_rule_is_named_in_the_log_and_its_message_is_kept(tmp_path: Path) -> None:
    """A wrong share, validly signed: the sum is recovered from the others, and what was signed is kept as evidence."""
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        signing_key = sites[BIRCH].hospital.signing_key
        sent = []

        def wrong_share(message: Any) -> Any:
            if not isinstance(message, UnmaskShares):
                return message
            first, *others = message.self_mask_shares
            wrong = replace(first, share=bytes(32) + b"\x07")
            machine = sites[BIRCH].machine
            assert isinstance(machine, secagg.Done)
            lie = replace(message, self_mask_shares=(wrong, *others))
            sent.append(replace(lie, signature=signing_key.sign(unmask_payload(lie, machine.transcript))))
            return sent[-1]

        sites[BIRCH].changes[1, 1] = wrong_share
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "completed")
        assert world.history(study)[0]["survivors"] == list(SITES)
        (entry,) = [entry for entry in world.home.log() if entry["type"] == "secagg.failed"]
        assert (entry["body"]["blamed"], entry["body"]["phase"]) == (BIRCH, "unmasking")
        kept = (world.home.folder / "evidence" / entry["body"]["evidence_sha256"]).read_bytes()
        assert codec.decode_site_message(kept) == sent[0]


async def test_a_bad_signature_is_named_in_the_log_and_the_round_goes_on(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[DELTA].changes[1, 1] = lambda message: (
            replace(message, signature=bytes(64)) if isinstance(message, SealedShares) else message
        )
        await world.command("study.start", study=study.id)
        await world.until(lambda: bool(world.history(study)))
        assert world.history(study)[0]["survivors"] == [AMBER, BIRCH, CEDAR]
        (entry,) = [entry for entry in world.home.log() if entry["type"] == "secagg.failed"]
        assert (entry["body"]["blamed"], entry["body"]["phase"]) == (DELTA, "keying")
        assert world.dropouts()[0] == (1, 1, DELTA, "keying")


async def test_two_sites_that_send_equal_bytes_cost_a_round_and_nothing_else(tmp_path: Path) -> None:
    """Colluding sites can agree on what they upload; each upload is kept under its own site's name."""
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        for name in (AMBER, BIRCH):
            site, honest = sites[name], sites[name]._mask

            def equal(machine: secagg.Masking, site: ScriptedSite = site, honest: Any = honest) -> RingVector:
                assert site.plan is not None
                layout = site.plan.layout
                first = (site.plan.round, site.plan.attempt) == (1, 1)
                return np.zeros(layout.length, layout.dtype) if first else honest(machine)

            site._mask = equal  # type: ignore[method-assign]
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "completed", 30)
        assert [(r["round"], r["attempt"]) for r in world.history(study)] == [(1, 2), (2, 1)]
        (aborted,) = [entry for entry in world.home.log() if entry["type"] == "round.aborted"]
        assert "the sum cannot be used" in aborted["body"]["reason"]
