"""How much, how many and how long: every bound of the wire in one place.

gRPC itself refuses a message above `MESSAGE_BYTES_MAX` from its length prefix, before it takes the memory. The bounds
of `REQUEST_BYTES_MAX` are tighter and per method; `codec.py` checks what is inside. docs/reference/wire.md lists them.
"""

from consortium.contract.certificates import CERTIFICATE_BYTES_MAX
from consortium.contract.names import MODEL_BYTES_MAX

KIB = 1024
MIB = 1024 * KIB

MESSAGE_BYTES_MAX = 8 * MIB
"""No single message of any method is larger, in either direction."""

PARTS_MAX = 2**17
"""Fields and list entries of one message, counted before it is parsed: an empty entry costs fifty times its bytes."""
PARAMETERS_MAX = 2**33
SEQUENCE_MAX = 2**53 - 1
"""Counters and log indices: what a JSON number holds exactly."""

HELLO_BYTES_MAX = KIB
SITE_MESSAGE_BYTES_MAX = MIB  # the largest is SealedShares: 255 boxes of about 2.4 KiB
COORDINATOR_MESSAGE_BYTES_MAX = 7 * MIB  # the largest is ShareDelivery: 255 x (2.4 KiB + 255 hashes with names)
ENDORSEMENT_BYTES_MAX = 4 * KIB
INVITATION_LIST_BYTES_MAX = 3 * MIB
"""All certificates of one invitation together, and all endorsements: a real one of either has about 1 KiB."""
TEXT_CHARACTERS_MAX = 2048
RULE_CHARACTERS_MAX = 128
VERSION_CHARACTERS_MAX = 64

CHUNK_BYTES_MAX = 256 * KIB
INLINE_BYTES_MAX = 64 * KIB
"""A vector of at most so many bytes travels in a message of the session: a call of its own costs more than it does."""
VECTOR_BYTES_MAX = MODEL_BYTES_MAX
EVENTS_PER_CALL_MAX = 1024
EVENT_BYTES_MAX = 64 * KIB
EVENTS_BYTES_MAX = 3 * MIB
NOTE_BYTES_MAX = 64 * KIB
"""A checkpoint with its signature lines: about 150 bytes and 130 for each of them."""
NOTES_MAX, NOTES_BYTES_MAX = 1024, 3 * MIB
"""Other sites' cosigned checkpoints in one answer."""
PROOF_HASHES_MAX = 63
DROPPED_BYTES_MAX = MIB
"""The list of leaves whose entries the log has dropped: one bit for each."""
LOG_GAP_MAX = 2**24
"""Entries that one FollowLog may bring."""
STUDY_BYTES_MAX = MIB
STUDIES_MAX = 10_000
ARGUMENTS_BYTES_MAX = 2 * MIB
ANSWER_BYTES_MAX = 3 * MIB
TOKEN_CHARACTERS_MIN, TOKEN_CHARACTERS_MAX = 16, 256
CERTIFICATE_DER_BYTES_MAX = CERTIFICATE_BYTES_MAX
CERTIFICATE_PEM_BYTES_MAX = 8 * KIB

_SLACK = 4 * KIB  # for the names and field tags around a large field

REQUEST_BYTES_MAX = {
    "Enrol": 8 * KIB,
    "EnrolAccount": 8 * KIB,
    "Session": SITE_MESSAGE_BYTES_MAX,
    "UploadVector": CHUNK_BYTES_MAX + _SLACK,
    "DownloadVector": KIB,
    "SubmitEvents": EVENTS_BYTES_MAX + 8 * EVENTS_PER_CALL_MAX,
    "FollowLog": NOTE_BYTES_MAX + _SLACK,
    "CosignLog": NOTE_BYTES_MAX + _SLACK,
    "ListStudies": KIB,
    "Greet": KIB,
    "Renew": 8 * KIB,
    "Execute": ARGUMENTS_BYTES_MAX + _SLACK,
    "Watch": KIB,
}
"""The largest request message of each method."""

HELLO_WAIT_S = 10.0
"""A session that does not say Hello within this time is closed."""
CHUNK_WAIT_S = 60.0
"""An upload that brings no chunk for this long is given up; it counts as none."""
SEND_WAIT_S = 60.0
"""A peer that does not take a message for this long is treated as gone."""
DRAIN_WAIT_S = 5.0
"""How long the rest of a refused upload is read and thrown away, so that its sender can still hear why."""
FINISH_WAIT_S = 30.0
"""How long the coordinator lets its own work finish after the caller it is for has hung up."""
CONNECT_WAIT_S = 20.0
CALL_WAIT_S = 60.0
COMMAND_WAIT_S = 300.0
KEEPALIVE_S = 10.0
"""A line silent for this long is tried with a ping; half as long again without an answer and it counts as broken."""

UPLOADS_MOVING_MAX = 4
DOWNLOADS_MOVING_MAX = 4
"""Vectors that move at a time, in either direction; the others wait their turn. See `places.py`."""
UNREAD_BYTES_MAX = MIB
"""How much of one call the coordinator's network buffers take before its sender has to wait: 10 MB/s at 100 ms."""
PLACE_LOOK_S = 0.25
PLACE_BYTES = MIB
"""A vector of which less passes in this time gives up its place, and goes on without one."""

CALLS_MAX = 2048
CALLS_PER_CONNECTION_MAX = 32
CONNECTIONS_MAX = 1024
HANDSHAKE_WAIT_S = 10.0

ERROR_DETAIL_BYTES_MAX = 4 * KIB
RETURN_S = 60.0
"""What a site whose line broke in the middle of an upload has for coming back: as long as the others wait for it."""
