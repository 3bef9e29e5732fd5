"""How many cosignatures a study asks for, and what its file may say about it."""

import json
from typing import Any

import pytest

from audit.policy import witnesses_needed
from consortium.contract.digest import canonical_bytes
from consortium.contract.errors import DocumentInvalid
from consortium.contract.study import StudyFile
from consortium.contract.witnessing import COSIGNATURES_MAX, cosignatures_needed
from tests.fakes.growing_log import witness_of
from tests.fakes.small_study import small_study


def study(**witnesses: Any) -> StudyFile:
    document = json.loads(small_study().document())
    return StudyFile.from_document(canonical_bytes({**document, "witnesses": {"lying": 0, "outside": [], **witnesses}}))


def test_the_arithmetic_is_the_logs_own() -> None:
    for sites in range(3, 150):
        for lying in range(min(sites, 20)):
            assert cosignatures_needed(sites, lying) == min(witnesses_needed(sites, lying), COSIGNATURES_MAX)


def test_a_study_that_says_nothing_asks_for_a_majority_and_keeps_its_digest() -> None:
    assert small_study().cosignatures_needed == 3
    assert "witnesses" not in json.loads(small_study().document())
    assert study(lying=0).cosignatures_needed == 3


@pytest.mark.parametrize(
    ("witnesses", "where"),
    [
        ({"lying": 2}, "witnesses.lying"),  # all four of four, and the threshold is three
        ({"lying": -1}, "witnesses.lying"),
        ({"outside": ["no key"]}, "witnesses.outside"),
        ({"quorum": 3}, "witnesses"),
    ],
)
def test_what_a_study_may_not_ask_for(witnesses: dict[str, Any], where: str) -> None:
    with pytest.raises(DocumentInvalid, match=where):
        study(**witnesses)


def test_an_outside_witness_is_named_by_its_key() -> None:
    key = witness_of("auditor", 5).key
    found = study(outside=[key.vkey()]).witnesses
    assert found is not None
    assert found.outside == (key.vkey(),)
