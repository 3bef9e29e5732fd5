"""A-25: something that names a patient, a person, a machine or a key gets into the log, where nothing is erased.

Identifiers are planted wherever somebody could: patients' numbers in the data, names of the people who decide and
declare, the host's and the user's name, paths, key bytes, in the words of errors, in what is typed to commands and in
what a site's agent says of itself. A whole study is run, with refusals, pauses by errors and declarations; then every
entry, and every other text that leaves (the hospitals' lists of what left, the evidence with its report), is searched.

Tried: rows a25 of `mutations.py` (the words of an unforeseen error in `Coordinator._run`, an error's words in the place
of the rule in `commands.execute`, `Plain.read` that lets everything pass). By hand: `one_line` without its scrubbing,
and the name in the place of the pseudonym in `SignedEvents.pseudonym` or `CoordinatorHome.pseudonym`.
"""

import asyncio
import base64
import getpass
import json
import socket
import zipfile
from pathlib import Path
from typing import Any

import pytest

from audit.errors import EntryRefused
from consortium.commands import execute
from consortium.contract.digest import canonical_bytes
from consortium.driver import StudyDriver
from consortium.errors import ConsortiumError, StudyConflict
from consortium.wire.errors import WireViolation
from site_agent.app import declare_fact
from site_agent.deciding import decide_study
from tests.fakes.agents_in_process import Consortium, hospitals_of
from tests.fakes.site_world import small_study

PERSON, AUDITOR = "Dr Adalberta Lovelacchia", "Prof Grazia Hopperini"
HOST, USER = "mri-console-7", "svc-oncology-batch"
SEALED_PATH = "/srv/oncology/ward-9/export.csv"
PATIENT = "SECRET-0"  # every patient's number in the made-up data begins so
TYPED = "mrn-00417923"


@pytest.fixture(autouse=True)
def _planted_in_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's and the user's name; what an audit at admission measures is not needed here."""
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    monkeypatch.setattr(getpass, "getuser", lambda: USER)
    monkeypatch.setenv("USER", USER)
    monkeypatch.setenv("HOSTNAME", HOST)
    monkeypatch.setattr("site_agent.admission_audit.audited_at_admission", lambda *_, **__: None)


async def test_nothing_that_identifies_anybody_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small_study(training={"rounds": 1})
    async with hospitals_of(tmp_path, study) as consortium:
        secrets = keys_of(tmp_path)
        await declare(consortium, tmp_path)
        await refuse(consortium)
        await fall_over(consortium, monkeypatch, secrets[0])
        await consortium.world.command("study.resume", study=study.id)
        await consortium.until("completed")
        await consortium.certified()
        searched = await written(consortium)
    assert {
        "log.reviewed",
        "incident.opened",
        "legal_basis.declared",
        "authz.denied",
        "study.paused",
        "dp.certificate",
    } <= {json.loads(entry)["type"] for entry in searched["log"].splitlines()}
    planted = {
        **{f"key {number}": key for number, key in enumerate(secrets)},
        "person": PERSON.encode(),
        "person's last name": b"Lovelacchia",
        "auditor": b"Hopperini",
        "steward": b"Dr ",  # those of `hospitals_of`
        "host": HOST.encode(),
        "user": USER.encode(),
        "patient": PATIENT.encode(),
        "typed": TYPED.encode(),
        "path": SEALED_PATH.encode(),
        "home": str(tmp_path).encode(),
        "data": b"patients.csv",
    }
    found = [
        (what, where)
        for where, content in searched.items()
        for what, secret in planted.items()
        for form in forms(secret)
        if form in content
    ]
    assert found == []


def keys_of(folder: Path) -> list[bytes]:
    """Every private key and secret on the disks of everybody: the bytes that would give it away."""
    found = []
    for path in sorted([*folder.glob("*/keys/*"), *folder.glob("home/keys/*")]):
        data = path.read_bytes()
        body = (
            b"".join(line for line in data.splitlines() if not line.startswith(b"-----")) if b"PRIVATE" in data else b""
        )
        found.append(base64.b64decode(body)[-32:] if body else data)
    assert len(found) >= 20
    return found


def forms(secret: bytes) -> set[bytes]:
    """How bytes may be written; of a key, a piece of 24 characters would be too much."""
    written = {secret, secret.hex().encode(), base64.b64encode(secret), base64.urlsafe_b64encode(secret)}
    return {form[:24] if len(secret) >= 24 else form.rstrip(b"=") for form in written}


async def declare(consortium: Consortium, folder: Path) -> None:
    """Facts, with a name, a document in a telling place, and words that must not pass."""
    document = folder / "lovelacchia-opinion.pdf"
    document.write_bytes(b"an opinion by " + PERSON.encode())
    home, study = next(iter(consortium.agents.values())).home.folder, consortium.study.id
    about: dict[str, Any] = {"study": study, "document": document, "person": PERSON}
    note = {"keep_document": True, "note": f"{PERSON} saw patient {TYPED} in {SEALED_PATH}", "subject": PERSON}
    for kept in ({}, note):
        made, _ = await declare_fact(home, "legal_basis.declared", ["article_6=6(1)(e)"], **about, **kept)
        assert json.loads(made)["body"]["on_behalf"].startswith("u:")
    for words in (f"from {SEALED_PATH}", f"patient {TYPED}", f"key {'5d' * 32}"):
        with pytest.raises(EntryRefused):
            await declare_fact(home, "incident.closed", ["incident=1", f"summary={words}"], **about)
        with pytest.raises(EntryRefused):
            await decide_study(home, study, "rejected", steward=PERSON, statement=words)
    recorded: dict[str, list[str]] = {
        "log.reviewed": ["first_leaf=0", "last_leaf=2", "findings=0", "summary=nothing unusual"],
        "incident.opened": [
            "incident=2026-07",
            "kind=availability",
            "discovered_at=2026-11-23T08:00:00.000Z",
            "summary=one agent was offline",
        ],
    }
    for kind, fields in recorded.items():
        await command(consortium, "record", kind=kind, fields=fields, study=None, document_sha256=None, by=AUDITOR)


async def refuse(consortium: Consortium) -> None:
    """Commands and calls that are refused, with identifiers in what was typed and sent."""
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("study.show", {"study": TYPED}),
        ("site.revoke", {"site": TYPED}),
        (f"open {SEALED_PATH}", {}),
        ("record", {"kind": TYPED, "fields": [f"summary={SEALED_PATH}"], "by": PERSON}),
        ("record", {"kind": "incident.closed", "fields": ["incident=1", f"summary=from {SEALED_PATH}"], "by": PERSON}),
    ]
    for name, arguments in wrong:
        with pytest.raises(ConsortiumError):
            await command(consortium, name, **arguments)
    peer = next(iter(consortium.world.home.rooms.sites.all()))
    coordinator = consortium.world.home.coordinator
    await coordinator.turned_away(None, "Enrol", WireViolation("token", found=f"{PERSON} of {HOST}", allowed="hex"))
    coordinator.rooms.sites.access.session_opened(peer.site, f"0.1.0 from {SEALED_PATH} on 10.1.1.7/{TYPED}/x")


async def fall_over(consortium: Consortium, monkeypatch: pytest.MonkeyPatch, key: bytes) -> None:
    """The coordinator meets errors in whose words everything stands: one nobody foresaw, and one of ours."""
    for error in (
        RuntimeError(f"{PERSON} on {HOST} as {USER}: {PATIENT}17 in {SEALED_PATH} {key.hex()}"),
        StudyConflict(f"the study could not go on: {SEALED_PATH} {key.hex()} {base64.b64encode(key).decode()}"),
    ):

        async def fails(_: StudyDriver, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as broken:
            broken.setattr(StudyDriver, "run", fails)
            paused = consortium.world.state(consortium.study) == "paused"
            await consortium.world.command("study.resume" if paused else "study.start", study=consortium.study.id)
            await consortium.until("paused")


async def written(consortium: Consortium) -> dict[str, bytes]:
    """Everything that leaves, or stands where others read it: what -> its bytes."""
    answer = await command(consortium, "audit.export", study=consortium.study.id)
    found = {"log": b"\n".join(consortium.world.home.rooms.recorder.log.entries())}
    with zipfile.ZipFile(answer["path"]) as archive:
        found |= {f"evidence {name}": archive.read(name) for name in archive.namelist() if name != "verify.py"}
    for name, agent in consortium.agents.items():
        sent = await asyncio.to_thread(agent.store.egress)
        found[f"egress of {name}"] = "\n".join(map(repr, sent)).encode()
    assert len(found) > 20
    return found


async def command(consortium: Consortium, name: str, **arguments: Any) -> dict[str, Any]:
    answer = json.loads(await execute(consortium.world.home.coordinator, name, canonical_bytes(arguments)))
    assert isinstance(answer, dict)
    return answer
