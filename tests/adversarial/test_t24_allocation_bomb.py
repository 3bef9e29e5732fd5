"""Threat 24: an enormous n or d in a plan or a header must cost nothing: it is refused before memory is taken.

Held by: `Layout.check` (privacy/encoding.py), `Context.check` (privacy/secagg/context.py), the order of the checks in
`site._check_bundles`, `admit_upload` (privacy/secagg/coordinator.py), and the bounds that `codec.py` and
`RoundPlan.from_bytes` put on every number before it is used. `tests/property/test_codec_fuzz.py` measures the codec.
Tried: rows 24 of `mutations.py`.
"""

import hashlib
import json
import tracemalloc
from dataclasses import replace

import pytest

from consortium.contract.errors import DocumentInvalid
from consortium.contract.plan import PARTICIPANTS_MAX, PLAN_BYTES_MAX, RoundPlan
from consortium.wire import codec
from consortium.wire import consortium_pb2 as pb
from consortium.wire.errors import WireViolation
from privacy.encoding import Lane, Layout
from privacy.errors import ContextRefused, EncodingRefused, PeerViolation
from privacy.secagg import coordinator, site
from privacy.secagg.context import RosterEntry
from privacy.secagg.messages import Phase, SiteId
from tests.fakes.attempt_play import plan_of
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
    """Twenty thousand sites, each with keys of its own: nothing but their number is wrong."""
    roster = tuple(
        RosterEntry(
            site=SiteId(f"site-{i:05}"), spki_sha256=i.to_bytes(32, "big"), signing_key=i.to_bytes(32, "little")
        )
        for i in range(20_000)
    )
    with pytest.raises(ContextRefused) as caught:
        coordinator.begin(replace(GROUP.context, roster=roster, threshold=15_000))
    assert caught.value.field == "participants"


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


PLAN = plan_of(GROUP.members)


def plan_with(**changes):
    """The bytes of a plan that no honest coordinator writes; the signature would be its own."""
    return json.dumps(json.loads(PLAN.to_bytes()) | changes, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("length", [2**34, 2**63, 10**30, 1e30, True, -1])
@pytest.mark.usefixtures("little_memory")
def test_a_plan_for_an_enormous_vector_is_refused(length):
    layout = {"modulus_bits": 32, "lanes": [["update", length, 1.0, 1024.0]]}
    with pytest.raises(DocumentInvalid) as caught:
        RoundPlan.from_bytes(plan_with(layout=layout))
    assert caught.value.problems[0].path.startswith("layout")


@pytest.mark.usefixtures("little_memory")
def test_a_plan_of_many_lanes_that_are_enormous_together_is_refused():
    lanes = [[f"lane-{number}", 2**30, 1.0, 1024.0] for number in range(100)]
    with pytest.raises(DocumentInvalid):
        RoundPlan.from_bytes(plan_with(layout={"modulus_bits": 32, "lanes": lanes}))


@pytest.mark.usefixtures("little_memory")
def test_a_plan_for_thousands_of_hospitals_is_refused():
    ours = json.loads(PLAN.to_bytes())["participants"][0]
    crowd = [[f"site-{number:05}", *ours[1:]] for number in range(PARTICIPANTS_MAX + 1)]
    with pytest.raises(DocumentInvalid) as caught:
        RoundPlan.from_bytes(plan_with(participants=crowd))
    assert caught.value.problems[0].path == "participants"
    with pytest.raises(DocumentInvalid, match="bytes"):
        RoundPlan.from_bytes(b"[" * (PLAN_BYTES_MAX + 1))


@pytest.mark.parametrize("size_bytes", [0, 2**40, 2**63, 2**64 - 1])
@pytest.mark.usefixtures("little_memory")
def test_a_header_of_an_enormous_vector_is_refused_before_its_first_chunk(size_bytes):
    header = pb.VectorHeader(
        kind=pb.VECTOR_KIND_INITIAL_MODEL,
        sha256=bytes(32),
        size_bytes=size_bytes,
        study_digest=hashlib.sha256(b"study").digest(),
    )
    with pytest.raises(WireViolation, match=r"header\.size_bytes"):
        codec.decode_vector_header(pb.VectorPart(header=header).SerializeToString())


@pytest.mark.parametrize("field", ["bundles", "members", "survivors", "confirmations", "boxes", "shares"])
@pytest.mark.usefixtures("little_memory")
def test_a_message_with_more_entries_than_any_round_has_sites_is_refused(field):
    many, context, signature = 20_000, bytes(32), bytes(64)
    messages = {
        "bundles": pb.CoordinatorMessage(bundle_list=pb.BundleList(context=context, bundles=[pb.KeyBundle()] * many)),
        "members": pb.CoordinatorMessage(share_delivery=pb.ShareDelivery(context=context, members=[""] * many)),
        "survivors": pb.CoordinatorMessage(
            survivor_proposal=pb.SurvivorProposal(
                context=context, survivors=[""] * many, headers=[pb.UploadHeader()] * many
            )
        ),
        "confirmations": pb.CoordinatorMessage(
            unmask_request=pb.UnmaskRequest(context=context, confirmations=[pb.Confirmation()] * many)
        ),
        "boxes": pb.SiteMessage(
            sealed_shares=pb.SealedShares(
                context=context, site="alder", boxes=[pb.SealedForPeer()] * many, signature=signature
            )
        ),
        "shares": pb.SiteMessage(
            unmask_shares=pb.UnmaskShares(
                context=context, site="alder", root_shares=[pb.RevealedShare()] * many, signature=signature
            )
        ),
    }
    message = messages[field]
    decode = codec.decode_site_message if isinstance(message, pb.SiteMessage) else codec.decode_coordinator_message
    with pytest.raises(WireViolation, match=f"{many} entries"):
        decode(message.SerializeToString())
