"""Threat 24: an enormous n or d in a plan or a header must cost nothing: it is refused before memory is taken."""

import tracemalloc
from dataclasses import replace

import pytest

from privacy.encoding import Lane, Layout
from privacy.errors import ContextRefused, EncodingRefused, PeerViolation
from privacy.secagg import coordinator, site
from privacy.secagg.messages import Phase
from tests.fakes.memory_round import MemoryRound, consortium, site_name

GROUP = consortium(4)
A = site_name(0)
MEBIBYTE = 2**20


@pytest.fixture
def little_memory():
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * MEBIBYTE


@pytest.mark.parametrize("length", [2**34, 2**63, 10**30])
@pytest.mark.usefixtures("little_memory")
def test_an_enormous_layout_is_refused(length):
    lane = Lane(name="update", length=length, clip=1.0, scale=1024.0)
    with pytest.raises(EncodingRefused):
        Layout(modulus_bits=32, lanes=(lane,)).check(4)
    context = replace(GROUP.context, layout=Layout(modulus_bits=32, lanes=(lane,)))
    with pytest.raises(EncodingRefused):
        coordinator.begin(context)


@pytest.mark.usefixtures("little_memory")
def test_many_lanes_are_refused():
    lanes = tuple(Lane(name=str(i), length=1, clip=1.0, scale=1024.0) for i in range(5000))
    with pytest.raises(EncodingRefused):
        Layout(modulus_bits=32, lanes=lanes).check(4)


@pytest.mark.usefixtures("little_memory")
def test_a_roster_of_thousands_is_refused():
    entry = GROUP.context.roster[0]
    roster = tuple(replace(entry, site=f"site-{i:05}") for i in range(20_000))
    with pytest.raises(ContextRefused):
        coordinator.begin(replace(GROUP.context, roster=roster, threshold=15_000))


def test_long_lists_are_refused_at_their_first_stranger():
    round_ = MemoryRound(GROUP)
    round_.run(until=Phase.SHARE)
    request = round_.request_for(A)
    strangers = tuple(replace(request.bundles[0], site=f"zz-{i:05}") for i in range(10_000))
    state, _ = site.step(round_.site_states[A], replace(request, bundles=(*request.bundles, *strangers)))
    assert state.reason.rule == "only participants are heard"


def test_an_upload_that_will_not_be_taken_is_refused_by_its_header():
    round_ = MemoryRound(GROUP)
    round_.run(until=Phase.MASK)
    forged = {}
    round_.tamper_to_coordinator = lambda name, message: forged.setdefault(name, message) and None
    round_.deliver(*round_.queue.popleft())
    header = replace(forged[A], signature=bytes(64))
    with pytest.raises(PeerViolation):
        coordinator.admit_upload(round_.coordinator_state, header)
