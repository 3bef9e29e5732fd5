"""Threat 27: any one byte of any message is changed on its way. It must be noticed, whichever byte it is.

Every field of every message, nested ones included, is changed at its first, middle and last byte and at one drawn
by Hypothesis; names are changed too. A site refuses the message; the coordinator blames its sender or, when the
context is what changed, ignores it.

Held by: `check_signed` and `check_context` (privacy/secagg/checks.py), on which every message depends. The same for
the bytes on the wire: tests/property/test_codec_fuzz.py.
Tried: rows 27 of `mutations.py`.
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.secagg import coordinator
from privacy.secagg.coordinator import Blame, Ignored
from privacy.secagg.messages import Phase
from privacy.secagg.suites import SuiteName
from tests.fakes.liar import refused
from tests.fakes.memory_round import REPLY_OF, Link, MemoryRound, consortium, site_name

GROUPS = {suite: consortium(4, suite=suite) for suite in SuiteName}
A, B, D = site_name(0), site_name(1), site_name(3)
TO_SITES = [Phase.SHARE, Phase.MASK, Phase.CONFIRM, Phase.UNMASK]


def flipped(value: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(value)
    changed[place] ^= 1 << bit
    return bytes(changed)


def mutations(value: object, draw: float, bit: int) -> Iterator[object]:
    """The value with one byte of one field changed, for every field at any depth."""
    if isinstance(value, bytes) and value:
        for place in sorted({0, len(value) // 2, len(value) - 1, int(draw * len(value))}):
            yield flipped(value, place, bit)
    elif isinstance(value, str):
        yield value[:-1] + chr(ord(value[-1]) ^ 1)
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            for changed in mutations(item, draw, bit):
                yield (*value[:i], changed, *value[i + 1 :])
    elif is_dataclass(value):
        for field in fields(value):
            for changed in mutations(getattr(value, field.name), draw, bit):
                yield replace(value, **{field.name: changed})


def stopped(suite, until):
    round_ = MemoryRound(GROUPS[suite], links={D: Link(lose_reply=Phase.MASK)})
    round_.run(until=until)
    return round_.site_states[B], round_.request_for(B)


def awaiting(suite, phase):
    """A coordinator waiting for B in `phase`, and what B sends."""
    kept = []
    round_ = MemoryRound(GROUPS[suite], links={D: Link(lose_reply=Phase.MASK)})
    round_.tamper_to_coordinator = lambda name, m: kept.append(m) if name == B and REPLY_OF[type(m)] is phase else m
    if phase is Phase.ADVERTISE:
        return round_.coordinator_state, dict(round_.queue)[B]
    while round_.queue:
        round_.deliver(*round_.queue.popleft())
    return round_.coordinator_state, kept[0]


STOPPED = {(suite, until): stopped(suite, until) for suite in SuiteName for until in TO_SITES}
AWAITING = {(suite, phase): awaiting(suite, phase) for suite in SuiteName for phase in Phase}


@pytest.mark.parametrize("suite", SuiteName)
@pytest.mark.parametrize("until", TO_SITES)
@settings(max_examples=4, deadline=None)
@given(draw=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_site_refuses_every_mutated_message(suite, until, draw, bit):
    state, request = STOPPED[suite, until]
    count = 0
    for mutated in mutations(request, draw, bit):
        refused(state, mutated)
        count += 1
    assert count > 10


@pytest.mark.parametrize("suite", SuiteName)
@pytest.mark.parametrize("phase", list(Phase))
@settings(max_examples=4, deadline=None)
@given(draw=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_the_coordinator_never_takes_a_mutated_message(suite, phase, draw, bit):
    state, answer = AWAITING[suite, phase]
    for mutated in mutations(answer, draw, bit):
        after, effects = coordinator.step(state, mutated)
        if mutated.context != answer.context:
            assert isinstance(effects[0], Ignored)
            assert after == state
        else:
            assert isinstance(effects[0], Blame)
            assert effects[0].violation.site == mutated.site


@pytest.mark.parametrize("suite", SuiteName)
@pytest.mark.parametrize("phase", list(Phase))
def test_the_unchanged_message_is_taken(suite, phase):
    state, answer = AWAITING[suite, phase]
    _, effects = coordinator.step(state, answer)
    assert not any(isinstance(effect, Blame | Ignored) for effect in effects)
