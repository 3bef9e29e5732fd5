"""The operator's commands: every answer is a canonical JSON object, every wrong request a refusal in words."""

import json
from pathlib import Path
from typing import Any

import pytest

from consortium.commands import ALL_COMMANDS, LOG_PAGE_BYTES, CommandRefused, execute
from consortium.contract.digest import canonical_bytes
from consortium.contract.names import SiteId
from consortium.contract.submission import owner_fingerprint
from consortium.errors import NotWitnessed, SiteConflict, SiteUnknown, StudyConflict, StudyUnknown
from consortium.operator import run_command
from consortium.wire.limits import ANSWER_BYTES_MAX
from tests.fakes.coordinator_home import Home, coordinator_in, new_home
from tests.fakes.running_study import STUDY, plan, started
from tests.fakes.small_study import SITES, first_model, small_study


async def run(world: Home, command: str, **arguments: Any) -> dict[str, Any]:
    answer = await execute(world.coordinator, command, canonical_bytes(arguments))
    found = json.loads(answer)
    assert isinstance(found, dict)
    assert answer == canonical_bytes(found)
    return found


async def test_a_study_from_its_submission_to_its_evidence(tmp_path: Path) -> None:
    """Every command once, in the order people use them."""
    used: set[str] = set()
    with coordinator_in(tmp_path) as world:

        async def ran(command: str, **arguments: Any) -> dict[str, Any]:
            used.add(command)
            return await run(world, command, **arguments)

        assert (await ran("status"))["studies"] == []
        kit = await ran("site.invite", site=SITES[0])
        assert bytes.fromhex(kit["kit"])[:2] == b"PK"
        assert kit["expires"].endswith(" UTC")
        hospital = world.enrol(SITES[1])
        (listed,) = (await ran("site.list"))["sites"]
        assert (listed["site"], listed["state"], listed["connected"]) == (SITES[1], "enrolled", False)

        submitted = await ran("study.submit", document=STUDY.document().decode())
        fingerprint = owner_fingerprint(world.coordinator.home.owner_key.public_key().public_bytes_raw().hex())
        assert submitted == {"study": STUDY.id, "digest": STUDY.digest(), "owner_key_sha256": fingerprint}
        world.sites.submit_events(hospital.site, [hospital.approves(STUDY)])
        assert (await ran("study.list"))["studies"][0]["state"] == "submitted"
        shown = await ran("study.show", study=STUDY.id)
        assert shown["study"]["id"] == STUDY.id
        assert shown["decisions"] == {SITES[1]: "approved"}

        for command, state in (("start", "running"), ("pause", "paused"), ("resume", "running")):
            assert await ran(f"study.{command}", study=STUDY.id) == {}
            assert world.studies.get(STUDY.id).state == state
        assert world.coordinator.drivers == {}  # the home is only open for commands: nothing runs

        model = world.rooms.models.save(first_model())
        world.studies.begin(world.studies.get(STUDY.id), [SiteId(site) for site in SITES], model)
        world.studies.complete(world.studies.get(STUDY.id))
        with pytest.raises(NotWitnessed, match="3 of its hospitals must have cosigned"):
            await ran("study.release", study=STUDY.id)
        world.witnessed_by(hospital, world.enrol(SITES[2]), world.enrol(SITES[3]))
        assert await ran("study.release", study=STUDY.id) == {"model_digest": model}

        exported = await ran("audit.export", study=STUDY.id)
        (evidence,) = (world.folder / "exports").iterdir()
        assert (exported["path"], exported["size_bytes"]) == (str(evidence.resolve()), evidence.stat().st_size)
        log = await ran("audit.log", start=0)
        assert log["size"] == len(log["entries"])
        assert [row["index"] for row in log["entries"]] == list(range(log["size"]))
        assert log["entries"][0]["type"] == "log.opened"
        assert (await ran("audit.proof", index=0))["receipt"].startswith("c2sp.org/tlog-proof@v1")

        await ran("site.revoke", site=SITES[1])
        assert (await run(world, "site.list"))["sites"][0]["state"] == "revoked"
        world.submit(small_study(name="other-study"))
        await ran("study.abort", study="other-study")
        snapshot = await run(world, "status")
        assert [study["state"] for study in snapshot["studies"]] == ["completed", "aborted"]
    elsewhere = {"record", "audit.retention", "audit.erase", "audit.payloads", "audit.rotate-key"}
    elsewhere |= {"site.suspend", "site.reinstate"}
    of_accounts = {"account.invite", "account.list", "account.renew", "account.revoke", "account.role"}
    fetched = {"study.model", "audit.export-part"}
    assert used == ALL_COMMANDS - elsewhere - of_accounts - fetched  # below, in test_log_keys.py and test_accounts.py


async def test_facts_are_declared_under_a_pseudonym(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        reviewed = {"first_leaf": 0, "last_leaf": 0, "findings": 0, "summary": "nothing unusual"}
        words = [f"{name}={value}" for name, value in reviewed.items()]
        about: dict[str, Any] = {"kind": "log.reviewed", "study": None, "document_sha256": None, "by": "Ada Example"}
        for _ in range(2):
            body = (await run(world, "record", fields=words, **about))["entry"]["body"]
            assert body == reviewed | {"document_sha256": None, "on_behalf": body["on_behalf"]}
        first, second = world.bodies("log.reviewed")
        assert first["on_behalf"] == second["on_behalf"] == world.coordinator.home.pseudonym("Ada Example")
        assert first["on_behalf"] != world.coordinator.home.pseudonym("Ada Exemple")
        await run(world, "audit.erase", payloads=[], subject="Ada Example", by="Eve Officer")  # now it is nobody's
        assert first["on_behalf"] != world.coordinator.home.pseudonym("Ada Example")
        with pytest.raises(CommandRefused, match="a leaf of this log"):
            await run(world, "record", fields=[*words[:1], "last_leaf=99", *words[2:]], **about)
        with pytest.raises(StudyUnknown):
            await run(world, "record", fields=words, **(about | {"study": "no-such-study"}))


async def test_what_a_policy_of_retention_no_longer_asks_for(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        document = json.loads(STUDY.document())
        document["governance"]["retention_years"] = 10
        await run(world, "study.submit", document=canonical_bytes(document).decode())
        with pytest.raises(CommandRefused, match="a longer retention"):
            await run(world, "audit.retention", years=9)
        assert (await run(world, "audit.retention", years=10))["entries"] == 0
        assert world.bodies("retention.applied") == []
        await run(world, "audit.retention", years=10, by="Ada Example")
        (applied,) = world.bodies("retention.applied")
        assert (applied["years"], applied["entries_due"], applied["action"]) == (10, 0, "kept")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("", b"{}"),
        ("study.destroy", b"{}"),
        ("__class__", b"{}"),
        ("status", b""),
        ("status", b"no json"),
        ("status", b"[]"),
        ("status", b'"status"'),
        ("status", b"[" * 100_000),
        ("site.invite", b"{}"),
        ("site.invite", b'{"site": 7}'),
        ("study.start", b'{"site": "amber-clinic"}'),
        ("study.show", b'{"study": null}'),
        ("study.submit", b'{"document": {}}'),
        ("study.submit", b'{"document": "{}"}'),
        ("study.submit", b'{"document": "not json"}'),
        ("audit.log", b"{}"),
        ("audit.log", b'{"start": "0"}'),
        ("audit.log", b'{"start": -1}'),
        ("audit.log", b'{"start": true}'),
        ("audit.proof", b'{"index": 1.5}'),
        ("audit.proof", b'{"index": 1000}'),
    ],
)
async def test_a_request_that_is_wrong(tmp_path: Path, command: str, arguments: bytes) -> None:
    with coordinator_in(tmp_path) as world:
        with pytest.raises(CommandRefused) as caught:
            await execute(world.coordinator, command, arguments)
        assert caught.value.code == "invalid"
        assert caught.value.advice()
        assert world.types() == ["log.opened", "authz.denied"]


async def test_errors_of_the_rooms_pass_through(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        for command in ("show", "start", "pause", "resume", "abort", "release"):
            with pytest.raises(StudyUnknown):
                await run(world, f"study.{command}", study="nothing")
        with pytest.raises(StudyUnknown):
            await run(world, "audit.export", study="nothing")
        with pytest.raises(SiteUnknown):
            await run(world, "site.revoke", site=SITES[0])
        with pytest.raises(SiteConflict):
            await run(world, "site.invite", site="Not A Name")
        world.submit(STUDY)
        with pytest.raises(StudyConflict):
            await run(world, "study.release", study=STUDY.id)


async def test_a_long_log_comes_in_pages_that_fit_the_wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consortium.commands.LOG_PAGE_BYTES", 2000)
    with coordinator_in(tmp_path) as world:
        for number in range(12):
            world.sites.invite(f"site-{number}")
        found: list[int] = []
        pages = 0
        while len(found) < world.rooms.recorder.log.size:
            page = await run(world, "audit.log", start=len(found))
            assert page["entries"]
            found += [row["index"] for row in page["entries"]]
            pages += 1
        assert found == list(range(world.rooms.recorder.log.size))
        assert pages > 1
        assert (await run(world, "audit.log", start=10**9))["entries"] == []


async def test_an_answer_of_the_largest_page_fits_the_wire(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        answer = await execute(world.coordinator, "audit.log", b'{"start":0}')
        stored = sum(len(data) + 100 for data in world.rooms.recorder.log.entries())
        assert len(answer) <= stored * 1.2 + 100  # so that a page of LOG_PAGE_BYTES stays below the bound
        assert LOG_PAGE_BYTES * 1.2 + 70_000 < ANSWER_BYTES_MAX


async def test_the_command_line_opens_the_home_of_a_coordinator_that_is_not_running(tmp_path: Path) -> None:
    folder = new_home(tmp_path)
    answer = await run_command(folder, "status", {})
    assert answer["connected"] == []
    assert answer["log_size"] == 1


async def test_an_aborted_study_leaves_no_attempt_open(tmp_path: Path) -> None:
    """A process died in the middle of a round, and the lead gave the study up before starting another."""
    with coordinator_in(tmp_path) as world:
        started(world)
        world.studies.open_round(world.studies.get(STUDY.id), plan())
        await run(world, "study.abort", study=STUDY.id)
        assert world.studies.open_plans(STUDY.digest()) == ()
        assert world.types()[-2:] == ["study.aborted", "round.aborted"]
