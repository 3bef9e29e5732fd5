"""One attempt seen from the site: keys and training meet in whatever order they are done."""

import dataclasses
from datetime import date

import pytest

from consortium.contract.messages import BundleList, RoundAborted, ShareDelivery
from privacy.errors import OutOfOrder
from privacy.secagg import site
from privacy.secagg.messages import Phase
from site_agent.participation import AttemptOver, MaskAndUpload, Participation, UpdateMasked, UpdateReady, step
from tests.fakes.memory_round import Consortium, MemoryRound, consortium

NO_PLAN = date(2026, 1, 1)  # `participation` only carries the plan


def in_phase(phase: Phase) -> tuple[Participation, Consortium, MemoryRound]:
    """A site that waits for the coordinator's message of `phase`."""
    group = consortium(4)
    around = MemoryRound(group=group)
    around.run(until=phase)
    return Participation(plan=NO_PLAN, machine=around.site_states["site-a"]), group, around


def message_of(around, kind):
    asked = around.request_for("site-a")
    return kind(**{field.name: getattr(asked, field.name) for field in dataclasses.fields(kind)})


def test_trained_before_the_keys_are_there():
    state, _, around = in_phase(Phase.MASK)
    state, effects = step(state, UpdateReady())
    assert effects == ()
    state, effects = step(state, message_of(around, ShareDelivery))
    (wanted,) = effects
    assert isinstance(wanted, MaskAndUpload)
    assert state.masking


def test_keys_before_the_training_is_done():
    state, _, around = in_phase(Phase.MASK)
    state, effects = step(state, message_of(around, ShareDelivery))
    assert effects == ()
    state, effects = step(state, UpdateReady())
    assert isinstance(effects[0], MaskAndUpload)


def test_masked_once_only():
    state, _, around = in_phase(Phase.MASK)
    state, _ = step(state, message_of(around, ShareDelivery))
    state, _ = step(state, UpdateReady())
    state, effects = step(state, UpdateReady())
    assert effects == ()
    state, effects = step(state, UpdateMasked(masked_update_hash=b"h" * 32))
    assert isinstance(effects[0].message, site.UploadHeader)
    with pytest.raises(OutOfOrder):
        step(state, UpdateMasked(masked_update_hash=b"i" * 32))


def test_every_other_message_is_the_machines():
    state, _, around = in_phase(Phase.SHARE)
    assert not state.released
    state, effects = step(state, message_of(around, BundleList))
    assert isinstance(effects[0].message, site.SealedShares)
    with pytest.raises(OutOfOrder):
        step(state, message_of(around, BundleList))


def test_released_is_said_once_shares_are_out():
    state, _, around = in_phase(Phase.UNMASK)
    assert not state.released
    state, effects = step(state, around.request_for("site-a"))
    assert [type(effect).__name__ for effect in effects] == ["PersistReleased", "Send"]
    assert state.released
    assert step(state, RoundAborted(context=b"", reason="late")) == (state, ())


def test_an_end_from_outside_leaves_no_secret():
    state, _, _ = in_phase(Phase.UNMASK)
    state, (abandon,) = step(state, RoundAborted(context=b"", reason="the operator said so"))
    assert abandon == site.Abandon(reason=AttemptOver("the operator said so"))
    assert abandon.reason.advice()
    assert state.over
    assert not state.released
