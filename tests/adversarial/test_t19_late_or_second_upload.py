"""Threat 19: an upload after the survivor set is fixed, or two uploads with different bodies.

Held by: `coordinator._accept`, `coordinator._out_of_phase` and `coordinator.admit_upload`
(privacy/secagg/coordinator.py).
Tried: rows 19 of `mutations.py`.
"""

from dataclasses import replace

import pytest

from privacy.errors import OutOfOrder, PeerViolation
from privacy.secagg import coordinator
from privacy.secagg.coordinator import AddUpload, Blame, Ignored
from privacy.secagg.messages import Phase, UploadHeader
from tests.fakes.liar import signed_header
from tests.fakes.memory_round import MemoryRound, consortium, site_name

GROUP = consortium(5, threshold=3)
A, B, C, D, E = (site_name(i) for i in range(5))


def after_uploads(count):
    """The coordinator after so many uploads, and all headers by site."""
    headers = {}
    round_ = MemoryRound(GROUP)
    round_.tamper_to_coordinator = lambda n, m: headers.setdefault(n, m) and None if isinstance(m, UploadHeader) else m
    while not isinstance(round_.coordinator_state, coordinator.Masking) or round_.queue:
        round_.deliver(*round_.queue.popleft())
    state = round_.coordinator_state
    for name in (A, B, C, D, E)[:count]:
        state, _ = coordinator.step(state, headers[name])
    return state, headers


def second(header):
    return signed_header(GROUP.member(header.site), replace(header, masked_update_hash=b"2" * 32))


def test_a_late_upload_is_not_added():
    state, headers = after_uploads(4)
    state, _ = coordinator.step(state, coordinator.DeadlinePassed())
    assert coordinator.phase_of(state) is Phase.CONFIRM
    after, effects = coordinator.step(state, headers[E])
    assert after == state
    assert [type(effect) for effect in effects] == [Ignored]
    with pytest.raises(OutOfOrder):
        coordinator.admit_upload(state, headers[E])


def test_two_bodies_from_one_site_are_blamed_and_the_first_counts():
    state, headers = after_uploads(1)
    state, effects = coordinator.step(state, second(headers[A]))
    assert [effect.violation.site for effect in effects if isinstance(effect, Blame)] == [A]
    assert not any(isinstance(effect, AddUpload) for effect in effects)
    assert [header.site for header in state.answers] == [A]


def test_so_is_a_second_body_after_the_survivor_set_is_fixed():
    state, headers = after_uploads(5)
    assert coordinator.phase_of(state) is Phase.CONFIRM
    after, effects = coordinator.step(state, second(headers[A]))
    assert [effect.violation.site for effect in effects if isinstance(effect, Blame)] == [A]
    assert after.survivors == state.survivors
    again, effects = coordinator.step(state, headers[A])
    assert again == state
    assert [type(effect) for effect in effects] == [Ignored]


def test_a_second_body_is_not_even_received():
    state, headers = after_uploads(1)
    with pytest.raises(PeerViolation):
        coordinator.admit_upload(state, second(headers[A]))
    coordinator.admit_upload(state, headers[B])
