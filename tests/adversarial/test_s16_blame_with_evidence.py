"""S-16: whoever breaks a rule is named in this site's own signed entry, and the message that shows it is kept.

Held by: `StudyWork._accuse` and `site_agent/evidence.py`. Without the first there is no entry `secagg.accused`;
without the second its digest is of nothing anybody has. Tried: rows s16 of `mutations.py`.
"""

import hashlib
from dataclasses import replace

import pytest

from audit import entries
from consortium.contract.messages import BundleList, ShareDelivery
from consortium.wire import codec
from privacy.secagg.messages import SurvivorProposal, UnmaskRequest
from site_agent import evidence
from tests.fakes.site_world import hospital


def spoilt_bundle(message):
    """A peer's bundle with another signature: the coordinator relayed what nobody signed."""
    if not isinstance(message, BundleList):
        return message
    first, *others = message.bundles
    return replace(message, bundles=(replace(first, signature=bytes(64)), *others))


def spoilt_box(message):
    """A box that its sender did not sign."""
    if not isinstance(message, ShareDelivery):
        return message
    first, *others = message.deliveries
    return replace(message, deliveries=(replace(first, shares=bytes(len(first.shares))), *others))


def spoilt_header(message):
    """A survivor that did not sign this upload."""
    if not isinstance(message, SurvivorProposal):
        return message
    first, *others = message.headers
    return replace(message, headers=(replace(first, signature=bytes(64)), *others))


def no_quorum(message):
    return replace(message, confirmations=message.confirmations[:1]) if isinstance(message, UnmaskRequest) else message


def accusations(world):
    return [entry for entry in world.line.log if isinstance(entry, entries.SecaggAccused)]


@pytest.mark.parametrize(
    ("lie", "phase"),
    [(spoilt_bundle, "advertise"), (spoilt_box, "share"), (spoilt_header, "mask"), (no_quorum, "unmask")],
)
async def test_the_liar_is_named_in_a_signed_entry_and_the_message_is_kept(tmp_path, lie, phase):
    async with hospital(tmp_path) as world:
        told = []

        def lying(message):
            changed = lie(message)
            if changed is not message:
                told.append(changed)
            return changed

        await world.attempt(to_victim=lying, result=False)
        await world.idle()
        (entry,) = accusations(world)
        assert (entry.actor, entry.round, entry.attempt) == (f"site:{world.home.site}", 1, 1)
        assert (entry.accused, entry.phase) == ("coordinator", phase)
        kept = (world.home.folder / "evidence" / entry.evidence_sha256).read_bytes()
        assert hashlib.sha256(kept).hexdigest() == entry.evidence_sha256
        assert codec.decode_coordinator_message(kept) == told[0]


async def test_a_coordinator_that_lies_for_ever_does_not_fill_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "KEPT_MAX", 1)
    async with hospital(tmp_path) as world:
        for attempt in (1, 2):
            await world.attempt(
                world.plan(attempt=attempt) if attempt > 1 else None, to_victim=spoilt_bundle, result=False
            )
            await world.idle()
        assert [bool(entry.evidence_sha256) for entry in accusations(world)] == [True, False]
        assert len(list((world.home.folder / "evidence").iterdir())) == 1
