"""Section 3: every field moves the digest, and what no honest study asks for is refused before a key exists."""

from dataclasses import replace

import pytest

from privacy.encoding import Lane
from privacy.errors import ContextRefused, EncodingOverflow, EncodingRefused
from privacy.secagg.context import default_threshold
from privacy.secagg.messages import COORDINATOR
from privacy.secagg.suites import SuiteName
from tests.fakes.memory_round import consortium

CONTEXT = consortium(4).context
FIRST = CONTEXT.roster[0]
P256 = consortium(4, suite=SuiteName.P256).context


@pytest.mark.parametrize(("n", "t"), [(3, 3), (4, 3), (5, 4), (7, 5), (10, 7), (50, 34), (100, 67)])
def test_the_default_threshold_is_that_of_the_design(n, t):
    assert default_threshold(n) == t


@pytest.mark.parametrize(
    "changed",
    [
        replace(CONTEXT, consortium="other"),
        replace(CONTEXT, suite=SuiteName.P256),
        replace(CONTEXT, study_hash=b"s" * 32),
        replace(CONTEXT, round=2),
        replace(CONTEXT, attempt=2),
        replace(CONTEXT, previous_transcript=b"p" * 32),
        replace(CONTEXT, roster=CONTEXT.roster[:3]),
        replace(CONTEXT, roster=(replace(FIRST, spki_sha256=b"k" * 32), *CONTEXT.roster[1:])),
        replace(CONTEXT, roster=(replace(FIRST, signing_key=b"k" * 32), *CONTEXT.roster[1:])),
        replace(CONTEXT, threshold=4),
        replace(CONTEXT, minimum=4),
        replace(CONTEXT, model_hash=b"m" * 32),
        replace(CONTEXT, plan_hash=b"q" * 32),
        replace(CONTEXT, layout=replace(CONTEXT.layout, modulus_bits=64)),
        replace(CONTEXT, layout=replace(CONTEXT.layout, lanes=CONTEXT.layout.lanes[:1])),
        replace(CONTEXT, layout=replace(CONTEXT.layout, lanes=CONTEXT.layout.lanes[::-1])),
        *(
            replace(CONTEXT, layout=replace(CONTEXT.layout, lanes=(lane, CONTEXT.layout.lanes[1])))
            for lane in (
                replace(CONTEXT.layout.lanes[0], name="other"),
                replace(CONTEXT.layout.lanes[0], length=6),
                replace(CONTEXT.layout.lanes[0], clip=0.5),
                replace(CONTEXT.layout.lanes[0], scale=2.0),
            )
        ),
    ],
)
def test_every_field_moves_the_digest(changed):
    assert changed.digest() != CONTEXT.digest()


def test_the_digest_is_a_function_of_the_fields():
    assert consortium(4).context.digest() == CONTEXT.digest()
    assert len(CONTEXT.digest()) == 32


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("participants", replace(CONTEXT, roster=CONTEXT.roster[:2], threshold=2)),
        ("participants", consortium(52, threshold=40).context),
        ("site name", replace(CONTEXT, roster=(replace(FIRST, site="Site-A"), *CONTEXT.roster[1:]))),
        ("site name", replace(CONTEXT, roster=(replace(FIRST, site=COORDINATOR), *CONTEXT.roster[1:]))),
        ("key of site-a", replace(CONTEXT, roster=(replace(FIRST, signing_key=b"k"), *CONTEXT.roster[1:]))),
        # One suite for all, with the signing keys of that suite.
        ("key of site-a", replace(CONTEXT, suite=SuiteName.P256)),
        ("key of site-a", replace(P256, suite=SuiteName.HYBRID_PQ)),
        ("key of site-b", replace(CONTEXT, roster=(FIRST, *P256.roster[1:]))),
        ("key of site-b", replace(P256, roster=(P256.roster[0], *CONTEXT.roster[1:]))),
        ("key of site-a", replace(P256, roster=(replace(P256.roster[0], spki_sha256=b"k" * 65), *P256.roster[1:]))),
        (
            "roster",
            replace(P256, roster=(replace(P256.roster[0], signing_key=P256.roster[1].signing_key), *P256.roster[1:])),
        ),
        ("roster", replace(CONTEXT, roster=CONTEXT.roster[::-1])),
        ("roster", replace(CONTEXT, roster=(*CONTEXT.roster[:3], CONTEXT.roster[2]))),
        ("threshold", replace(CONTEXT, threshold=2)),
        ("threshold", replace(CONTEXT, threshold=5)),
        ("threshold", replace(CONTEXT, threshold=0)),
        ("minimum", replace(CONTEXT, minimum=2)),
        ("minimum", replace(CONTEXT, minimum=5)),
        ("round", replace(CONTEXT, round=0)),
        ("round", replace(CONTEXT, attempt=0)),
        ("study_hash", replace(CONTEXT, study_hash=b"")),
        ("previous_transcript", replace(CONTEXT, previous_transcript=bytes(31))),
        ("model_hash", replace(CONTEXT, model_hash=bytes(33))),
        ("plan_hash", replace(CONTEXT, plan_hash=bytes(33))),
    ],
)
def test_what_no_honest_study_asks_for(field, changed, monkeypatch):
    monkeypatch.setattr("privacy.secagg.context.SITES_MAX", 50)
    with pytest.raises(ContextRefused) as caught:
        changed.check()
    assert caught.value.field == field


def test_the_layout_must_hold_for_the_whole_roster():
    lane = Lane(name="x", length=1, clip=1.0, scale=2.0**29)
    with pytest.raises(EncodingOverflow):
        replace(CONTEXT, layout=replace(CONTEXT.layout, lanes=(lane,))).check()
    with pytest.raises(EncodingRefused):
        replace(CONTEXT, layout=replace(CONTEXT.layout, modulus_bits=8)).check()


def test_what_an_honest_study_asks_for():
    for n in (3, 4, 10, 52):
        for suite in SuiteName:
            consortium(n, suite=suite).context.check()
