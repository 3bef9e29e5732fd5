"""A-30: entries are hidden by calling them dropped under a policy of retention.

A leaf without its entry counts only where a list names it whose SHA-256 stands in a `retention.applied` entry of the
same log. A hospital that has the entries looks whether they are as old as that entry says, before it cosigns; one that
comes later knows its own by their hashes. What the evidence lacks without such an entry is missing.

Tried: rows a30 of `mutations.py`: the list and its entry not looked at in `mirror.py`, in `log.py` and in
`verify.py`, the age of what is to go and a hospital's own hashes not looked at in `followed_log.py`.
"""

import hashlib
import json

import pytest

from audit import entries
from audit.dropped import Dropped
from audit.errors import EntryRefused, LogCorrupt
from audit.log import Log, LogView
from audit.note import parse_note
from audit.storage_files import LogFiles
from audit.verify import check
from site_agent.followed_log import DROPPED, FORGED, FORKED
from site_agent.log_mirror import FOLDER
from tests.fakes.growing_log import SIGNER
from tests.fakes.old_log import LONG_AGO_MS, OldConsortium, applied, evidence_of, planned
from tests.fakes.sample_study_log import START_MS, failed_steps, pack, unpack
from tests.fakes.watching_hospital import Watched, watching

GONE = Dropped.of(range(10, 256))


def old(kind: type[entries.Entry], number: int, *, at_ms: int = LONG_AGO_MS, **fields: object) -> bytes:
    return entries.entry_bytes(kind(**entries.stamp(at_ms, number.to_bytes(10)), **fields))


def long_ago(world: Watched) -> list[bytes]:
    """What the hospital finds when it comes: its enrolment, and 299 heartbeats from eight years ago."""
    body = json.loads(world.service.log.entries[0])["body"]
    beat = {"state": "alive", "interval_s": 60, "uptime_s": 60, "clock_moved_ms": 0}
    return [old(entries.SiteEnrolled, 0, **body), *(old(entries.Heartbeat, n, **beat) for n in range(1, 300))]


def announced(leaves: Dropped, **changed: object) -> bytes:
    sample = OldConsortium()
    sample.clock_ms = START_MS
    return applied(sample, leaves, **changed)


def copy_of(world: Watched) -> list[bytes | None]:
    """What the hospital has, its root recomputed."""
    view = LogView.read(world.home.folder / FOLDER, SIGNER.verifier)
    try:
        return list(view.known())
    finally:
        view.close()


async def test_a_hospital_that_comes_later_follows_a_log_that_dropped_entries(tmp_path):
    """The honest case, over the wire; and its own entry among the dropped ones is known by its hash."""
    async with watching(tmp_path) as world:
        before = long_ago(world)
        world.service.swallows = entries.StudyRejected.TYPE  # it is in the log already
        about = {"study": "small-study", "study_digest": "5d" * 32, "steward": "u:" + "0" * 16}
        world.signs(entries.StudyRejected, **about, reason="no")
        before[20] = next(iter(world.store.signed_entries()))
        world.service.log.entries = [*before, announced(GONE)]
        world.service.log.dropped = GONE
        await world.follows()
        world.service.log.add(old(entries.SiteInvited, 999, at_ms=START_MS, site="birch-hospital"))
        await world.follows()
        found = copy_of(world)
        assert [leaf for leaf, data in enumerate(found) if data is None] == list(range(10, 256))
        assert found[256:300] == before[256:300]
        assert len(found) == len(world.service.log.entries)


@pytest.mark.parametrize("listed", [Dropped(), Dropped.of(range(11, 256))])
async def test_a_hash_in_place_of_an_entry_that_no_list_has(tmp_path, listed):
    async with watching(tmp_path) as world:
        world.service.log.entries = [*long_ago(world), announced(GONE), announced(Dropped.of(range(11, 256)))]
        world.service.log.dropped = GONE
        honest = world.service.log.since

        def lies(size, *cosigned):
            growth, missing = honest(size, *cosigned)
            return type(growth)(note=growth.note, proof=growth.proof, cosigned=cosigned, dropped=listed.bits), missing

        world.service.log.since = lies
        broken = await world.breaks()
        assert (broken.kind, "entry 10 only a hash came" in str(broken)) == (FORKED, True)


@pytest.mark.parametrize("changed", [None, {"dropped_sha256": "0" * 64}])
async def test_a_list_that_no_entry_names(tmp_path, changed):
    async with watching(tmp_path) as world:
        world.service.log.entries = long_ago(world) + ([announced(GONE, **changed)] if changed else [])
        world.service.log.dropped = GONE
        assert "no retention.applied entry" in str(await world.breaks())


@pytest.mark.parametrize("changed", [{"older_than": "2018-01-01"}, {"older_than": "2025-01-01"}, {"years": 30}])
async def test_a_drop_of_what_is_not_old_enough_is_not_cosigned(tmp_path, changed):
    """By who has the entries: entry 5 is from eight years ago, and so are those around it."""
    async with watching(tmp_path) as world:
        world.service.log.entries = long_ago(world)
        await world.follows()
        world.service.log.add(announced(GONE, **changed))
        assert (await world.breaks()).kind == DROPPED
        announcement = parse_note(world.service.log.note()).text
        assert all(parse_note(note).text != announcement for _, note in world.service.cosigned)


async def test_a_hospitals_own_entry_is_called_dropped_and_was_another(tmp_path):
    async with watching(tmp_path) as world:
        before = long_ago(world)
        world.service.swallows = entries.StudyRejected.TYPE
        about = {"study": "small-study", "study_digest": "5d" * 32, "steward": "u:" + "0" * 16}
        world.signs(entries.StudyRejected, **about, reason="the first, which the log never had")
        world.signs(entries.StudyApproved, **about, statement="the second")
        world.service.log.entries = [*before, announced(GONE), [*world.store.signed_entries()][1]]
        world.service.log.dropped = GONE
        assert (await world.breaks()).kind == FORGED


# --- evidence ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    archive, policy, leaves = evidence_of(tmp_path_factory.mktemp("old"))
    return unpack(archive), policy, leaves


def failures(tmp_path, files, policy):
    """The steps that fail once the manifest lists what is there: whoever hides entries writes the manifest too."""
    outside = [name for name in files if name.startswith("manifest.")]
    listed = sorted(set(files) - set(outside))
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in listed)
    files = files | {"manifest.sha256": "".join(lines).encode()}
    return failed_steps(check(str(pack(tmp_path / "changed.zip", files)), policy))


def test_evidence_with_dropped_entries_holds_and_says_which(tmp_path, evidence):
    files, policy, leaves = evidence
    result = check(str(pack(tmp_path / "as-it-is.zip", files)), policy)
    assert result["verified"]
    assert "log/tile/entries/001" not in files and "log/tile/kept/000" in files and "log/tile/0/001" in files  # noqa: PT018
    (note,) = [note for note in result["notes"] if "hash only" in note]
    assert note.startswith(
        f"{leaves.count} entries are known by their hash only: leaves 9-13, 15-15, 17-511, dropped on"
    )
    assert "retention.applied, leaf 685" in note


def test_a_bundle_is_missing_and_no_list_has_it(tmp_path, evidence):
    files, policy, _ = evidence
    (last,) = [name for name in files if name.startswith("log/tile/entries/002")]
    without = {name: data for name, data in files.items() if name != last}
    assert failures(tmp_path, without, policy)["root recomputed from all entries"]["where"] == last
    unlisted = {name: data for name, data in files.items() if name != "log/dropped"}
    failed = failures(tmp_path, unlisted, policy)["root recomputed from all entries"]
    assert (failed["where"], failed["expected"], failed["found"]) == ("log/tile/entries/000", "a file", "none")


def test_an_entry_that_was_kept_is_missing(tmp_path, evidence):
    files, policy, leaves = evidence
    kept = files["log/tile/kept/000"]
    length = int.from_bytes(kept[:2])
    second = int.from_bytes(kept[2 + length : 4 + length])
    hidden = kept[: 2 + length] + bytes(2) + kept[4 + length + second :]
    failed = failures(tmp_path, files | {"log/tile/kept/000": hidden}, policy)["root recomputed from all entries"]
    assert failed["where"] == "log/tile/kept/000, leaf 1"
    longer = Dropped.of([1, *(leaf for first, last in leaves.runs() for leaf in range(first, last + 1))])
    both = files | {"log/tile/kept/000": hidden, "log/dropped": longer.bits}
    failed = failures(tmp_path, both, policy)["entries are well formed"]
    assert (failed["where"], longer.digest in failed["expected"]) == ("log/dropped", True)


def test_what_is_left_is_younger_than_what_was_to_go(tmp_path):
    archive, policy, _ = evidence_of(tmp_path, older_than="2018-01-01")
    failed = failed_steps(check(str(archive), policy))["entries are well formed"]
    assert (failed["where"], failed["found"]) == ("leaf 685 (retention.applied, older_than)", "2018-01-01")


def test_the_hash_of_a_dropped_entry_is_another(tmp_path, evidence):
    files, policy, _ = evidence
    tile = bytearray(files["log/tile/0/001"])
    tile[32 * 7] ^= 1
    failed = failures(tmp_path, files | {"log/tile/0/001": bytes(tile)}, policy)["root recomputed from all entries"]
    assert failed["where"] == "log/tile/0/001, leaves 256 to 511"


# --- the coordinator's own log -------------------------------------------------------------------------------------


def test_a_log_drops_nothing_that_it_did_not_announce(tmp_path):
    sample = OldConsortium(heartbeats=300).whole_study()
    log = sample.open_log(tmp_path)
    leaves = planned(log).dropped
    for wrong in (leaves, Dropped.of([0]), Dropped.of([10**6])):
        with pytest.raises(EntryRefused, match="names"):
            log.drop(wrong)
    assert not log.dropped
    log.close()
    files = LogFiles(tmp_path, writable=True)
    files.write("dropped", leaves.bits)  # whoever has the disk writes it there
    files.close()
    with pytest.raises(LogCorrupt, match=r"retention\.applied"):
        Log.open(tmp_path, sample.log_signer)
