"""Study + round number + consenting sites -> RoundPlan, the paper both sides sign.

The coordinator signs the canonical bytes of a plan; a site parses those very bytes, so what it checks is what was
signed. The plan's SHA-256 is part of the secure-aggregation context (protocol section 3).

A plan arrives from a coordinator that may lie: `RoundPlan.from_bytes` checks size, shape, types, ranges and order, and
that the bytes are the canonical ones. Whether the plan fits the study and the site's policy is the site's to decide.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn, Self

from consortium.contract.digest import canonical_bytes
from consortium.contract.errors import DocumentInvalid, Problem, shown
from consortium.contract.names import MODEL_BYTES_MAX, Digest, RoundNumber, SiteId, StudyId, is_digest, is_name
from consortium.contract.tensor_clips import STRETCHES_MAX
from privacy.encoding import Lane, Layout
from privacy.errors import EncodingOverflow
from privacy.p256 import POINT_BYTES
from privacy.secagg.context import (
    GROUP_SIZE_MAX,
    GROUPED_SITES_MAX,
    SITES_MAX,
    SITES_MIN,
    Context,
    RosterEntry,
)
from privacy.secagg.suites import SuiteName

SCHEMA = "consortium/round-plan/v1"
PLAN_BYTES_MAX = 2**19
PARTICIPANTS_MAX = GROUPED_SITES_MAX
PLAN_SIGNATURE_CONTEXT = b"consortium/round-plan/v1\n"
"""Stands before a plan under the coordinator's signature, so that it can mean nothing else."""

PARTICIPANTS_MIN = SITES_MIN
LANES_MAX = STRETCHES_MAX + 32  # the update's, the weight's and those of the metrics
ROUNDS_MAX = 1_000_000
ATTEMPTS_MAX = 10_000
DEADLINE_S_MAX = 604_800.0
_MODULI_BITS = (16, 32, 64)
_SCALE_MAX = 2.0**96  # the ring of 64 bits and the smallest clip, 1e-9, stay below it
_POINT = re.compile(f"04[0-9a-f]{{{2 * POINT_BYTES - 2}}}")


class RoundKind(StrEnum):
    """What a site does in a round."""

    TRAIN = "train"
    EVALUATE = "evaluate"  # lanes of metrics only; no training, no privacy spend


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """An invited site, with the keys its certificate binds."""

    site: SiteId
    spki_sha256: Digest
    signing_key: str  # 64 hex characters: Ed25519 public key; signs entries, and messages of the suite hybrid-pq
    ecdsa_key: str  # 130 hex characters: P-256 point, uncompressed; signs messages of the suite p256

    def key_of(self, suite: SuiteName) -> str:
        """The key that signs this site's messages of secure aggregation in a suite, in hexadecimal."""
        return self.ecdsa_key if suite is SuiteName.P256 else self.signing_key


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    """One attempt at one round."""

    consortium: str
    suite: SuiteName
    study: StudyId
    study_digest: Digest
    kind: RoundKind
    round: RoundNumber
    attempt: int  # 1 for a round's first attempt
    participants: tuple[Participant, ...]  # sorted by site
    threshold: int
    minimum: int
    model_digest: Digest
    previous_transcript: Digest
    layout: Layout
    round_deadline_s: float
    upload_deadline_s: float
    group_size: int = 0  # the fewest sites of a group whose sum the coordinator sees; 0: one sum, of everybody

    def to_bytes(self) -> bytes:
        """Canonical bytes, the thing that is signed and digested."""
        return canonical_bytes(
            {
                "schema": SCHEMA,
                "consortium": self.consortium,
                "suite": self.suite.value,
                "study": self.study,
                "study_digest": self.study_digest,
                "kind": self.kind.value,
                "round": self.round,
                "attempt": self.attempt,
                "participants": [[p.site, p.spki_sha256, p.signing_key, p.ecdsa_key] for p in self.participants],
                "threshold": self.threshold,
                "minimum": self.minimum,
                "model_digest": self.model_digest,
                "previous_transcript": self.previous_transcript,
                "layout": {
                    "modulus_bits": self.layout.modulus_bits,
                    "lanes": [
                        [lane.name, lane.length, float(lane.clip), float(lane.scale)] for lane in self.layout.lanes
                    ],
                },
                "round_deadline_s": float(self.round_deadline_s),
                "upload_deadline_s": float(self.upload_deadline_s),
                "group_size": self.group_size,
            }
        )

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Parse the canonical bytes of a plan; raises DocumentInvalid at the first thing that is not as it must be."""
        if len(raw) > PLAN_BYTES_MAX:
            _refuse("", f"{len(raw)} bytes", f"at most {PLAN_BYTES_MAX} bytes")
        try:
            record = json.loads(raw)
        except (ValueError, RecursionError):
            _refuse("", "bytes that are not JSON", "the canonical bytes of a round plan")
        keys = _record(record, "", _KEYS)
        participants = tuple(
            _participant(item, f"participants[{index}]")
            for index, item in enumerate(
                _items(keys["participants"], "participants", PARTICIPANTS_MIN, PARTICIPANTS_MAX)
            )
        )
        names = [participant.site for participant in participants]
        if names != sorted(set(names)):
            _refuse("participants", "sites out of order or twice", "each site once, sorted")
        plan = cls(
            consortium=_text(keys["consortium"], "consortium"),
            suite=_suite(keys["suite"]),
            study=StudyId(_name(keys["study"], "study", 64)),
            study_digest=_digest(keys["study_digest"], "study_digest"),
            kind=_kind(keys["kind"]),
            round=RoundNumber(_whole(keys["round"], "round", 1, ROUNDS_MAX)),
            attempt=_whole(keys["attempt"], "attempt", 1, ATTEMPTS_MAX),
            participants=participants,
            # Section 2: 2t > n, or two disjoint groups could open two different sums.
            threshold=_whole(keys["threshold"], "threshold", len(names) // 2 + 1, len(names)),
            minimum=_whole(keys["minimum"], "minimum", PARTICIPANTS_MIN, len(names)),
            model_digest=_digest(keys["model_digest"], "model_digest"),
            previous_transcript=_digest(keys["previous_transcript"], "previous_transcript"),
            layout=_layout(keys["layout"], len(names)),
            round_deadline_s=_number(keys["round_deadline_s"], "round_deadline_s", DEADLINE_S_MAX),
            upload_deadline_s=_number(keys["upload_deadline_s"], "upload_deadline_s", DEADLINE_S_MAX),
            group_size=_group_size(keys["group_size"], len(names)),
        )
        if keys["schema"] != SCHEMA:
            _refuse("schema", shown(keys["schema"]), SCHEMA)
        # One plan, one byte string: what a site digests must be what every other site digests.
        if plan.to_bytes() != raw:
            _refuse("", "bytes that are not canonical", "the canonical bytes of a round plan")
        return plan


def context_of(plan: RoundPlan) -> Context:
    """What secure aggregation is bound to in this attempt: the plan's own fields and the SHA-256 of its bytes."""
    return Context(
        consortium=plan.consortium,
        suite=plan.suite,
        study_hash=bytes.fromhex(plan.study_digest),
        round=plan.round,
        attempt=plan.attempt,
        previous_transcript=bytes.fromhex(plan.previous_transcript),
        roster=tuple(
            RosterEntry(
                site=participant.site,
                spki_sha256=bytes.fromhex(participant.spki_sha256),
                signing_key=bytes.fromhex(participant.key_of(plan.suite)),
            )
            for participant in plan.participants
        ),
        threshold=plan.threshold,
        minimum=plan.minimum,
        model_hash=bytes.fromhex(plan.model_digest),
        plan_hash=hashlib.sha256(plan.to_bytes()).digest(),
        layout=plan.layout,
        group_size=plan.group_size,
    )


# --- strict parsing: every helper returns the value in its type or refuses the plan ---------------------------------

_KEYS = frozenset(
    {
        "schema", "consortium", "suite", "study", "study_digest", "kind", "round", "attempt", "participants",
        "threshold", "minimum", "model_digest", "previous_transcript", "layout", "round_deadline_s",
        "upload_deadline_s", "group_size",
    }
)  # fmt: skip


def _refuse(path: str, found: str, allowed: str) -> NoReturn:
    raise DocumentInvalid("round plan", [Problem(path=path, line=None, found=found, allowed=allowed)])


def _record(value: Any, path: str, keys: frozenset[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != keys:
        _refuse(path, shown(value), "a record with exactly the keys " + ", ".join(sorted(keys)))
    return value


def _items(value: Any, path: str, least: int, most: int) -> list[Any]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        _refuse(path, shown(value), f"a list of {least} to {most}")
    return value


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 200 or not value.isprintable():
        _refuse(path, shown(value), "one line of text, at most 200 characters")
    return value


def _name(value: Any, path: str, longest: int) -> str:
    if not isinstance(value, str) or not is_name(value, longest=longest):
        _refuse(path, shown(value), f"a name of at most {longest} characters of a-z, 0-9 and '-'")
    return value


def _digest(value: Any, path: str) -> Digest:
    if not isinstance(value, str) or not is_digest(value):
        _refuse(path, shown(value), "64 lowercase hexadecimal characters")
    return Digest(value)


def _whole(value: Any, path: str, least: int, most: int) -> int:
    # `type` and not isinstance: True is an int to Python, and 1 and true must not be the same plan.
    if type(value) is not int or not least <= value <= most:
        _refuse(path, shown(value), f"a whole number from {least} to {most}")
    return value


def _number(value: Any, path: str, most: float) -> float:
    if type(value) is not float or not math.isfinite(value) or not 0 < value <= most:
        _refuse(path, shown(value), f"a number greater than 0 and at most {most}")
    return value


def _kind(value: Any) -> RoundKind:
    if value not in tuple(RoundKind):
        _refuse("kind", shown(value), "one of " + ", ".join(RoundKind))
    return RoundKind(value)


def _group_size(value: Any, sites: int) -> int:
    size = _whole(value, "group_size", 0, GROUP_SIZE_MAX)
    if size == 0 and sites > SITES_MAX:
        _refuse("group_size", f"0 with {sites} participants", f"groups, or at most {SITES_MAX} participants")
    if 0 < size < SITES_MIN:
        _refuse("group_size", str(size), f"0, or {SITES_MIN} to {GROUP_SIZE_MAX}")
    return size


def _suite(value: Any) -> SuiteName:
    if value not in tuple(SuiteName):
        _refuse("suite", shown(value), "one of " + ", ".join(SuiteName))
    return SuiteName(value)


def _point(value: Any, path: str) -> str:
    if not isinstance(value, str) or not _POINT.fullmatch(value):
        _refuse(path, shown(value), f"{2 * POINT_BYTES} lowercase hexadecimal characters that begin with 04")
    return value


def _participant(value: Any, path: str) -> Participant:
    site, spki_sha256, signing_key, ecdsa_key = _items(value, path, 4, 4)
    return Participant(
        site=SiteId(_name(site, f"{path}[0]", 40)),
        spki_sha256=_digest(spki_sha256, f"{path}[1]"),
        signing_key=_digest(signing_key, f"{path}[2]"),
        ecdsa_key=_point(ecdsa_key, f"{path}[3]"),
    )


def _layout(value: Any, sites: int) -> Layout:
    record = _record(value, "layout", frozenset({"modulus_bits", "lanes"}))
    bits = record["modulus_bits"]
    if type(bits) is not int or bits not in _MODULI_BITS:
        _refuse("layout.modulus_bits", shown(bits), "one of 16, 32, 64")
    elements_max = MODEL_BYTES_MAX * 8 // bits
    lanes = []
    for index, item in enumerate(_items(record["lanes"], "layout.lanes", 1, LANES_MAX)):
        path = f"layout.lanes[{index}]"
        name, length, clip, scale = _items(item, path, 4, 4)
        lanes.append(
            Lane(
                name=_text(name, f"{path}[0]"),
                length=_whole(length, f"{path}[1]", 1, elements_max),
                clip=_number(clip, f"{path}[2]", 2.0**62),
                scale=_number(scale, f"{path}[3]", _SCALE_MAX),
            )
        )
    if len({lane.name for lane in lanes}) != len(lanes):
        _refuse("layout.lanes", "a lane twice", "each lane once")
    layout = Layout(modulus_bits=bits, lanes=tuple(lanes))
    if layout.length > elements_max:
        _refuse("layout", f"{layout.length} elements", f"at most {elements_max} elements, {MODEL_BYTES_MAX} bytes")
    try:
        layout.check(sites)  # section 5: the sum over all participants cannot wrap
    except EncodingOverflow as error:
        _refuse("layout", f"the lane {error.lane} with {sites} participants", "lanes whose sum fits the ring")
    return layout
