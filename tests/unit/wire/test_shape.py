"""Parts of a message are counted as protobuf would find them, and the count stops at its limit."""

from typing import Any

import pytest

from consortium.wire import consortium_pb2 as pb
from consortium.wire.errors import WireViolation
from consortium.wire.shape import check_parts

BUNDLES = pb.BundleList(context=b"c" * 32, bundles=[pb.KeyBundle(context=b"c" * 32, site="alder")] * 3)
WITH_LISTS = pb.CoordinatorMessage(bundle_list=BUNDLES)
PARTS = 1 + 1 + 3  # the body, the context, three bundles; what is in a bundle has no lists and is stepped over


@pytest.mark.parametrize(("most", "fits"), [(PARTS - 1, False), (PARTS, True), (PARTS + 1, True)])
def test_the_limit_itself_is_allowed(most: int, fits: bool) -> None:
    data = WITH_LISTS.SerializeToString()
    if fits:
        check_parts(WITH_LISTS.DESCRIPTOR, data, most)
    else:
        with pytest.raises(WireViolation, match=f"more than {most} entries"):
            check_parts(WITH_LISTS.DESCRIPTOR, data, most)


def test_lists_within_lists_are_counted() -> None:
    hashes = [pb.BoxHash(recipient="cedar", sha256=b"h" * 32)] * 10
    delivery = pb.ShareDelivery(deliveries=[pb.DeliveredShares(sender="alder", other_box_hashes=hashes)] * 4)
    data = pb.CoordinatorMessage(share_delivery=delivery).SerializeToString()
    parts = 1 + 4 + 4 * (1 + 10)
    check_parts(pb.CoordinatorMessage.DESCRIPTOR, data, parts)
    with pytest.raises(WireViolation):
        check_parts(pb.CoordinatorMessage.DESCRIPTOR, data, parts - 1)


def test_fields_of_another_release_are_counted_and_not_looked_into() -> None:
    unknown = bytes([0xA2, 0x7F, 2, 0xFF, 0xFF])  # field 2036, two bytes that are no message
    check_parts(pb.SiteMessage.DESCRIPTOR, unknown * 7, 7)
    with pytest.raises(WireViolation):
        check_parts(pb.SiteMessage.DESCRIPTOR, unknown * 8, 7)


def test_a_message_without_lists_is_left_to_protobuf() -> None:
    check_parts(pb.VectorPart.DESCRIPTOR, b"\xff" * 100, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",  # a tag and no length
        b"\x0a\x05ab",  # fewer bytes than announced
        b"\x0a\xff\xff\xff\xff\x0f",  # four thousand million bytes
        b"\x80" * 11,  # a number that does not end
        b"\x0b\x0c",  # a group, of another age
        b"\x09abc",  # half a fixed number
        b"\x0f",  # a wire type that is none
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(WireViolation, match="protobuf"):
        check_parts(pb.SiteMessage.DESCRIPTOR, data, 100)


@pytest.mark.parametrize("kind", [pb.SiteMessage, pb.CoordinatorMessage, pb.Events, pb.VectorPart, pb.EnrolmentRequest])
def test_an_empty_message_has_no_parts(kind: Any) -> None:
    check_parts(kind.DESCRIPTOR, b"", 0)
