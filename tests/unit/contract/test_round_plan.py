"""Round plans: the bytes both sides sign, read back strictly."""

import dataclasses
import hashlib
import json
from typing import Any

import pytest

from consortium.contract import plan as plans
from consortium.contract.errors import DocumentInvalid
from consortium.contract.names import Digest, RoundNumber, SiteId, StudyId
from consortium.contract.plan import Participant, RoundKind, RoundPlan, context_of
from privacy.encoding import Lane, Layout
from privacy.secagg.context import SITES_MAX
from privacy.secagg.suites import SuiteName

DIGEST = Digest("ab" * 32)


def participant(name: str, key: int) -> Participant:
    return Participant(
        site=SiteId(name),
        spki_sha256=Digest(f"{key:02x}" * 32),
        signing_key=f"{key + 16:02x}" * 32,
        ecdsa_key="04" + f"{key + 32:02x}" * 64,
    )


PLAN = RoundPlan(
    consortium="Cardio",
    suite=SuiteName.HYBRID_PQ,
    study=StudyId("heart-disease"),
    study_digest=DIGEST,
    kind=RoundKind.TRAIN,
    round=RoundNumber(3),
    attempt=1,
    participants=(participant("east", 1), participant("north", 2), participant("south", 3), participant("west", 4)),
    threshold=3,
    minimum=3,
    model_digest=Digest("cd" * 32),
    previous_transcript=Digest("00" * 32),
    layout=Layout(
        modulus_bits=32,
        lanes=(
            Lane(name="update", length=14, clip=4.0, scale=2.0**26),
            Lane(name="weight", length=1, clip=1.0, scale=1.0),
        ),
    ),
    round_deadline_s=600.0,
    upload_deadline_s=120.0,
)
OTHER_ECDSA_KEY = dataclasses.replace(PLAN.participants[0], ecdsa_key="04" + "aa" * 64)
RECORD = json.loads(PLAN.to_bytes())


def canonical(record: object) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def test_a_plan_reads_back() -> None:
    assert RoundPlan.from_bytes(PLAN.to_bytes()) == PLAN
    assert canonical(RECORD) == PLAN.to_bytes()


def test_whole_numbers_in_a_layout_are_the_same_plan() -> None:
    lanes = (Lane(name="update", length=14, clip=4, scale=2**26), Lane(name="weight", length=1, clip=1, scale=1))
    same = dataclasses.replace(
        PLAN, layout=Layout(modulus_bits=32, lanes=lanes), round_deadline_s=600, upload_deadline_s=120
    )
    assert same.to_bytes() == PLAN.to_bytes()
    assert context_of(same).digest() == context_of(PLAN).digest()


def test_context_carries_every_field_of_the_plan() -> None:
    context = context_of(PLAN)
    assert context.consortium == "Cardio"
    assert context.study_hash == bytes.fromhex(DIGEST)
    assert (context.round, context.attempt, context.threshold, context.minimum) == (3, 1, 3, 3)
    assert context.previous_transcript == bytes(32)
    assert context.model_hash == b"\xcd" * 32
    assert context.plan_hash == hashlib.sha256(PLAN.to_bytes()).digest()
    assert context.layout == PLAN.layout
    assert [(entry.site, entry.spki_sha256[0], entry.signing_key[0]) for entry in context.roster] == [
        ("east", 1, 17), ("north", 2, 18), ("south", 3, 19), ("west", 4, 20),
    ]  # fmt: skip


def test_the_context_has_the_keys_of_the_plans_suite() -> None:
    context = context_of(dataclasses.replace(PLAN, suite=SuiteName.P256))
    assert context.suite is SuiteName.P256
    assert [entry.signing_key for entry in context.roster] == [b"\4" + bytes([key]) * 64 for key in (33, 34, 35, 36)]
    context.check()
    context_of(PLAN).check()


@pytest.mark.parametrize(
    "change",
    [
        {"consortium": "Other"}, {"suite": SuiteName.P256},
        {"study": "other-study"}, {"study_digest": "ef" * 32}, {"kind": RoundKind.EVALUATE},
        {"round": 4}, {"attempt": 2}, {"threshold": 4}, {"minimum": 4}, {"model_digest": "ef" * 32},
        {"previous_transcript": "ef" * 32}, {"round_deadline_s": 601.0}, {"upload_deadline_s": 121.0},
        {"group_size": 3},
        {"participants": (participant("east", 9), *PLAN.participants[1:])},
        # The key of the other suite is in the plan's digest too.
        {"participants": (OTHER_ECDSA_KEY, *PLAN.participants[1:])},
        {"layout": Layout(modulus_bits=64, lanes=PLAN.layout.lanes)},
    ],
)  # fmt: skip
def test_any_other_plan_is_another_context(change: dict[str, Any]) -> None:
    other = dataclasses.replace(PLAN, **change)
    assert RoundPlan.from_bytes(other.to_bytes()) == other
    assert context_of(other).digest() != context_of(PLAN).digest()


def lanes(*items: list[object]) -> dict[str, object]:
    return {"layout": {"modulus_bits": 32, "lanes": list(items)}}


ONE = RECORD["participants"][0]
BAD: list[tuple[dict[str, object], str]] = [
    ({"schema": "consortium/round-plan/v2"}, "schema"),
    ({"schema": None}, "schema"),
    ({"consortium": ""}, "consortium"),
    ({"consortium": "x" * 201}, "consortium"),
    ({"consortium": "a\x1b[2J"}, "consortium"),
    ({"consortium": 1}, "consortium"),
    ({"suite": "p-256"}, "suite"),
    ({"suite": None}, "suite"),
    ({"suite": []}, "suite"),
    ({"study": "Heart Disease"}, "study"),
    ({"study": "x" * 65}, "study"),
    ({"study_digest": "AB" * 32}, "study_digest"),
    ({"study_digest": "ab" * 31}, "study_digest"),
    ({"kind": "destroy"}, "kind"),
    ({"kind": 1}, "kind"),
    ({"kind": []}, "kind"),
    ({"round": 0}, "round"),
    ({"round": True}, "round"),
    ({"round": 1.0}, "round"),
    ({"round": 10**7}, "round"),
    ({"attempt": 0}, "attempt"),
    ({"attempt": 10**5}, "attempt"),
    ({"participants": []}, "participants"),
    ({"participants": "east"}, "participants"),
    ({"participants": RECORD["participants"][:2]}, "participants"),
    ({"participants": [*RECORD["participants"], RECORD["participants"][3]]}, "participants"),
    ({"participants": RECORD["participants"][::-1]}, "participants"),
    ({"participants": [ONE] * 1025}, "participants"),
    ({"group_size": None}, "group_size"),
    ({"group_size": False}, "group_size"),
    ({"group_size": 2}, "group_size"),
    ({"group_size": 129}, "group_size"),
    ({"participants": [[*ONE, 1], *RECORD["participants"][1:]]}, "participants[0]"),
    ({"participants": [["East", *ONE[1:]], *RECORD["participants"][1:]]}, "participants[0][0]"),
    ({"participants": [ONE[:3], *RECORD["participants"][1:]]}, "participants[0]"),
    ({"participants": [[ONE[0], "xx", *ONE[2:]], *RECORD["participants"][1:]]}, "participants[0][1]"),
    ({"participants": [[*ONE[:2], "", ONE[3]], *RECORD["participants"][1:]]}, "participants[0][2]"),
    ({"participants": [[*ONE[:3], ""], *RECORD["participants"][1:]]}, "participants[0][3]"),
    ({"participants": [[*ONE[:3], None], *RECORD["participants"][1:]]}, "participants[0][3]"),
    ({"participants": [[*ONE[:3], "06" + ONE[3][2:]], *RECORD["participants"][1:]]}, "participants[0][3]"),
    ({"participants": [[*ONE[:3], ONE[3][:-2]], *RECORD["participants"][1:]]}, "participants[0][3]"),
    ({"participants": [[*ONE[:3], ONE[3][:-1] + "A"], *RECORD["participants"][1:]]}, "participants[0][3]"),
    ({"participants": [[*ONE[:3], ONE[3] + "\n"], *RECORD["participants"][1:]]}, "participants[0][3]"),
    ({"threshold": 2}, "threshold"),
    ({"threshold": 5}, "threshold"),
    ({"minimum": 2}, "minimum"),
    ({"minimum": 5}, "minimum"),
    ({"model_digest": None}, "model_digest"),
    ({"previous_transcript": ""}, "previous_transcript"),
    ({"layout": []}, "layout"),
    ({"layout": {"modulus_bits": 32}}, "layout"),
    ({"layout": {"modulus_bits": 31, "lanes": RECORD["layout"]["lanes"]}}, "layout.modulus_bits"),
    ({"layout": {"modulus_bits": 32.0, "lanes": RECORD["layout"]["lanes"]}}, "layout.modulus_bits"),
    (lanes(), "layout.lanes"),
    (lanes(*[["a", 1, 1.0, 1.0]] * 65), "layout.lanes"),
    (lanes(["a", 1, 1.0, 1.0], ["a", 1, 1.0, 1.0]), "layout.lanes"),
    (lanes(["a", 1, 1.0]), "layout.lanes[0]"),
    (lanes(["", 1, 1.0, 1.0]), "layout.lanes[0][0]"),
    (lanes(["a", 0, 1.0, 1.0]), "layout.lanes[0][1]"),
    (lanes(["a", 2**40, 1.0, 1.0]), "layout.lanes[0][1]"),
    (lanes(["a", 1, 0.0, 1.0]), "layout.lanes[0][2]"),
    (lanes(["a", 1, 1, 1.0]), "layout.lanes[0][2]"),
    (lanes(["a", 1, 1.0, -1.0]), "layout.lanes[0][3]"),
    (lanes(["a", 1, 1.0, float("inf")]), "layout.lanes[0][3]"),
    (lanes(["a", 1, 1.0, float("nan")]), "layout.lanes[0][3]"),
    (lanes(["a", 2**31, 1.0, 1.0], ["b", 2**31, 1.0, 1.0]), "layout"),
    (lanes(["a", 1, 2.0**31, 1.0]), "layout"),
    ({"round_deadline_s": 0.0}, "round_deadline_s"),
    ({"round_deadline_s": 600}, "round_deadline_s"),
    ({"round_deadline_s": 1e9}, "round_deadline_s"),
    ({"upload_deadline_s": "120"}, "upload_deadline_s"),
    ({"extra": 1}, ""),
]


@pytest.mark.parametrize(("change", "path"), BAD)
def test_a_bad_plan_is_refused_where_it_is_bad(change: dict[str, object], path: str) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        RoundPlan.from_bytes(canonical(RECORD | change))
    assert caught.value.problems[0].path == path
    assert caught.value.advice()


@pytest.mark.parametrize("key", sorted(RECORD))
def test_a_plan_without_a_key_is_refused(key: str) -> None:
    with pytest.raises(DocumentInvalid):
        RoundPlan.from_bytes(canonical({name: value for name, value in RECORD.items() if name != key}))


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"round":' + b"9" * 10_000 + b"}",
        PLAN.to_bytes() + b"\n", b" " + PLAN.to_bytes(),
        PLAN.to_bytes().replace(b'"round":3', b'"round":2,"round":3'),
        PLAN.to_bytes().replace(b'"attempt":1', b'"attempt": 1'),
        PLAN.to_bytes().replace(b'"consortium":"Cardio"', b'"consortium":"C\\u0061rdio"'),
        b" " * (plans.PLAN_BYTES_MAX + 1),
    ],
)  # fmt: skip
def test_other_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(DocumentInvalid):
        RoundPlan.from_bytes(raw)


def test_more_participants_than_one_graph_holds_are_in_groups() -> None:
    many = tuple(
        dataclasses.replace(PLAN.participants[0], site=SiteId(f"site-{number:03}")) for number in range(SITES_MAX + 1)
    )
    coarse = Layout(modulus_bits=32, lanes=PLAN.layout.lanes[1:])
    plan = dataclasses.replace(PLAN, participants=many, threshold=200, layout=coarse, group_size=100)
    assert RoundPlan.from_bytes(plan.to_bytes()) == plan
    with pytest.raises(DocumentInvalid) as caught:
        RoundPlan.from_bytes(dataclasses.replace(plan, group_size=0).to_bytes())
    assert caught.value.problems[0].path == "group_size"
    whole = dataclasses.replace(plan, participants=many[:SITES_MAX], group_size=0)
    assert RoundPlan.from_bytes(whole.to_bytes()) == whole
