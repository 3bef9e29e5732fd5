"""A person far from the coordinator: enrols, submits, reads, fetches; and is told what the role does not allow."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consortium import account_folder
from consortium.account_folder import (
    AccountFolder,
    AccountUnusable,
    NothingToSignWith,
    connect,
    enrol,
    is_account,
    open_account,
)
from consortium.contract.certificates import new_signing_key
from consortium.contract.digest import canonical_bytes
from consortium.contract.names import SiteId
from consortium.contract.private_files import write_private
from consortium.contract.submission import Destination, owner_fingerprint, sign
from consortium.errors import HomeExists
from consortium.operator import FetchFailed, _client_of, fetch, fetch_model, run_command, watch_status
from consortium.roles import HOME, PersonRole
from consortium.wire.client import CoordinatorClient
from consortium.wire.errors import CallRefused, TlsRefused
from consortium.wire.server import ServerCredentials, serve
from tests.e2e.world import free_port
from tests.fakes import identity_provider as provider
from tests.fakes.coordinator_home import NAME, Home, coordinator_in, new_home
from tests.fakes.small_study import SITES, first_model, small_study

STUDY = small_study()
KEY, NOW = new_signing_key(), datetime.now(UTC)


@asynccontextmanager
async def serving(parent: Path, *, people_address: str | None = None) -> AsyncIterator[Home]:
    """A coordinator with its ports open, and nothing at work."""
    path = new_home(parent) / "coordinator.yaml"
    if people_address is not None:
        provider.taken_at(path.parent, people_address)
    text = path.read_text().replace("127.0.0.1:8443", f"127.0.0.1:{free_port()}")
    path.write_text(text)
    with coordinator_in(parent) as world:
        home = world.coordinator.home
        key_pem, certificate_pem = home.server_pem
        server = await serve(
            world.coordinator,
            address=home.config.address,
            people_address=home.config.people_address,
            credentials=ServerCredentials(ca_pem=home.ca_pem, certificate_pem=certificate_pem, key_pem=key_pem),
        )
        try:
            yield world
        finally:
            await server.stop(0)


async def joined(world: Home, parent: Path, name: str, role: str) -> AccountFolder:
    kit, _ = world.rooms.accounts.invite(name, PersonRole(role), HOME)
    (parent / f"{name}.kit").write_bytes(kit)
    return await enrol(parent / f"{name}.kit", parent / name)


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o77 for path in (folder / "keys").iterdir()}


async def test_a_scientist_and_an_auditor_work_from_elsewhere(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        ada = await joined(world, tmp_path, "ada-example", "scientist")
        assert is_account(ada.folder)
        assert not is_account(world.folder)
        assert modes(ada.folder) == {0}
        with pytest.raises(HomeExists):
            await enrol(tmp_path / "ada-example.kit", ada.folder)
        with pytest.raises(CallRefused, match="used before"):
            await enrol(tmp_path / "ada-example.kit", tmp_path / "again")
        assert not (tmp_path / "again").exists()

        submitted = await run_command(ada.folder, "study.submit", {"document": STUDY.document().decode()})
        fingerprint = owner_fingerprint(ada.signing_key.public_key().public_bytes_raw().hex())
        assert submitted == {"study": STUDY.id, "digest": STUDY.digest(), "owner_key_sha256": fingerprint}
        (created,) = world.bodies("study.created")
        assert (created["owner"], created["owner_key"]) == (
            world.coordinator.home.pseudonym("ada-example"),
            ada.signing_key.public_key().public_bytes_raw().hex(),
        )
        with pytest.raises(CallRefused, match=r"study.start: found the role scientist; allowed: lead, operator"):
            await run_command(ada.folder, "study.start", {"study": STUDY.id})
        with pytest.raises(CallRefused, match="role scientist"):
            await anext(watch_status(ada.folder))

        eve = await joined(world, tmp_path, "eve-auditor", "auditor")
        assert (await anext(watch_status(eve.folder)))["studies"][0]["study"] == STUDY.id
        world.studies.begin(world.studies.get(STUDY.id), [SiteId(site) for site in SITES], first_model().digest())
        model = world.rooms.models.save(first_model())
        world.studies.complete(world.studies.get(STUDY.id))
        world.witnessed_by(*(world.enrol(name) for name in SITES[1:4]))
        exported = await run_command(eve.folder, "audit.export", {"study": STUDY.id, "payloads": []})
        assert "path" not in exported
        await fetch(eve.folder, "audit.export-part", {"name": exported["name"]}, tmp_path / "evidence.zip")
        assert (tmp_path / "evidence.zip").stat().st_size == exported["size_bytes"]
        assert list((world.folder / "exports").iterdir()) == []
        with pytest.raises(CallRefused, match="no such export"):
            await fetch(eve.folder, "audit.export-part", {"name": "../keys/ca.pem"}, tmp_path / "stolen")
        assert not (tmp_path / "stolen").exists()

        lea = await joined(world, tmp_path, "lea-lead", "lead")
        with pytest.raises(CallRefused, match="right after"):
            await fetch_model(lea.folder, STUDY.id, model, tmp_path / "model.safetensors")
        assert (await run_command(lea.folder, "study.release", {"study": STUDY.id}))["model_digest"] == model
        with pytest.raises(FetchFailed, match="instead of"):
            await fetch_model(lea.folder, STUDY.id, "0" * 64, tmp_path / "model.safetensors")
        assert not (tmp_path / "model.safetensors").exists()
        await fetch_model(lea.folder, STUDY.id, model, tmp_path / "model.safetensors")
        assert (tmp_path / "model.safetensors").read_bytes() == world.rooms.models.file(model)

        denied = [(one["subject"], one["action"]) for one in world.bodies("authz.denied")]
        assert (world.coordinator.home.pseudonym("ada-example"), "study.start") in denied
        assert (world.coordinator.home.pseudonym("ada-example"), "Watch") in denied
        assert not any(name in str(world.log()) for name in ("ada-example", "eve-auditor", "lea-lead"))


async def test_a_certificate_is_renewed_by_whichever_command_finds_it_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as world:
        ada = await joined(world, tmp_path, "ada-example", "operator")
        first = ada.credentials
        await run_command(ada.folder, "status", {})
        assert ada.credentials == first
        renewal = AccountFolder.renewal

        def later(self: AccountFolder, now: datetime) -> bytes | None:
            return renewal(self, now + timedelta(days=25))

        monkeypatch.setattr(account_folder.AccountFolder, "renewal", later)
        await run_command(ada.folder, "status", {})
        assert ada.credentials[0] == first[0]
        assert ada.credentials[1] != first[1]
        await run_command(ada.folder, "status", {})
        assert datetime.now(UTC) < world.rooms.accounts.all()[0].not_after


async def test_somebody_with_a_token_reads_and_does_not_submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    async with serving(tmp_path, people_address=address) as world:
        world.submit(STUDY)
        ca = world.folder / "certificates/ca.pem"
        folder = connect(address, ca, tmp_path / "reader").folder
        with pytest.raises(AccountUnusable, match="token"):
            await run_command(folder, "status", {})
        write_private(folder / "token", provider.token().encode())
        assert (await run_command(folder, "study.list", {}))["studies"][0]["study"] == STUDY.id
        assert (await anext(watch_status(folder)))["studies"][0]["study"] == STUDY.id
        with pytest.raises(CallRefused, match=r"study.abort: found the role auditor"):
            await run_command(folder, "study.abort", {"study": STUDY.id})
        with pytest.raises(NothingToSignWith):
            await run_command(folder, "study.submit", {"document": STUDY.document().decode()})

        monkeypatch.setenv("CONSORTIUM_TOKEN", provider.token(roles=["cardio-science"]))
        stolen = sign(STUDY.digest(), Destination(consortium=NAME, coordinator_signing_key="0" * 64), KEY, now=NOW)
        async with await _client_of(open_account(folder)) as client:
            asked = {"document": STUDY.document().decode(), **asdict(stolen)}
            with pytest.raises(CallRefused, match="the study's submission is refused"):
                await client.execute("study.submit", canonical_bytes(asked))
            with pytest.raises(CallRefused, match="role scientist"):
                await anext(client.watch())
        monkeypatch.setenv("CONSORTIUM_TOKEN", provider.unsigned())
        with pytest.raises(CallRefused, match="it is not signed with RS256, ES256 or EdDSA"):
            await run_command(folder, "study.list", {})
        with pytest.raises(TlsRefused):  # the port for certificates takes no tokens
            await CoordinatorClient.connect_with_token(
                world.coordinator.home.config.address, ca.read_bytes(), provider.token()
            )
        denied = [(one["subject"], one["action"]) for one in world.bodies("authz.denied")]
        person = world.coordinator.home.pseudonym(f"{provider.ISSUER}#ada-0815")
        assert denied == [(person, "study.abort"), (person, "study.submit"), (person, "Watch")]
        assert [one["reason"] for one in world.bodies("auth.failed")] == [
            "Execute: the token was refused: it is not signed with RS256, ES256 or EdDSA"
        ]
        assert "ada-0815" not in str(world.log())
        with pytest.raises(HomeExists):
            connect(address, ca, folder)
        with pytest.raises(AccountUnusable):
            connect("nowhere", ca, tmp_path / "other")
        with pytest.raises(AccountUnusable):
            connect(address, tmp_path / "missing.pem", tmp_path / "other")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "account.json").unlink(),
        lambda folder: (folder / "account.json").write_text('{"account": 1}'),
        lambda folder: (folder / "keys/signing.pem").unlink(),
        lambda folder: (folder / "keys/signing.pem").write_bytes((folder / "keys/tls.pem").read_bytes()),
    ],
)
async def test_a_damaged_folder_is_said_to_be_one(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    async with serving(tmp_path) as world:
        folder = (await joined(world, tmp_path, "ada-example", "scientist")).folder
    damage(folder)
    with pytest.raises(AccountUnusable):
        assert open_account(folder).signing_key
