"""What the hospital signs for the log."""

import hashlib

import pytest

from audit import entries
from audit.errors import EntryRefused
from site_agent.signed_events import SignedEvents, bucket_of
from tests.fakes.site_world import ME, make_world

DIGEST = "5d" * 32


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path, approved=False)


def rejected(events, reason="no"):
    events.add(
        entries.StudyRejected, study="small-study", study_digest=DIGEST, steward=events.pseudonym("x"), reason=reason
    )


def test_entries_verify_under_the_hospitals_key_and_are_chained(world):
    events = SignedEvents(world.home, world.store)
    rejected(events)
    rejected(events, "still no")
    (_, first), (_, second) = world.store.pending_events()
    key = bytes.fromhex(world.home.identity.signing_key)
    one, two = (entries.verify_site_entry(entry, key) for entry in (first, second))
    assert (one.actor, one.site_seq, one.site_prev) == (f"site:{ME}", 1, entries.NO_ENTRY)
    assert (two.site_seq, two.site_prev) == (2, hashlib.sha256(first).hexdigest())


def test_an_entry_the_log_would_refuse_is_not_kept(world):
    events = SignedEvents(world.home, world.store)
    with pytest.raises(EntryRefused):
        rejected(events, "two\nlines")
    assert world.store.pending_events() == ()


def test_pseudonyms_are_stable_and_only_this_hospitals(world, tmp_path):
    events = SignedEvents(world.home, world.store)
    name = "Dr Ada Steward"
    found = events.pseudonym(name)
    assert found == SignedEvents(world.home, world.store).pseudonym(name)
    assert found != events.pseudonym("Dr Ada Stewart")
    # Whoever guesses the name cannot check the guess.
    for guess in (name, f"consortium/pseudonym/v1\n{name}"):
        assert hashlib.sha256(guess.encode()).hexdigest()[:32] not in found
    other = make_world(tmp_path / "other", approved=False)
    (tmp_path / "other/keys/hedge.key").write_bytes(b"k" * 32)
    assert SignedEvents(other.home, other.store).pseudonym(name) != found


@pytest.mark.parametrize(
    ("count", "bucket"),
    [
        (0, "0-9"),
        (9, "0-9"),
        (10, "10-19"),
        (199, "100-199"),
        (200, "200-499"),
        (100_000, "100000+"),
        (7**9, "100000+"),
    ],
)
def test_counts_are_ranges(count, bucket):
    assert bucket_of(count) == bucket
