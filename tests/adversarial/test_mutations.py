"""Every threat has a test, and every test has been seen to fail without the check it covers."""

import pytest

from tests.adversarial.mutations import (
    MUTATIONS,
    PASSED,
    PROTOCOL_MUTATIONS,
    ROOT,
    Mutation,
    Nursery,
    Verdict,
    applied,
    attempt,
    threat_file,
    try_all,
)
from tests.adversarial.privacy_mutations import PRIVACY_MUTATIONS

THREATS = [f"t{number:02}" for number in range(1, 28)]


@pytest.mark.parametrize("threat", THREATS)
def test_every_threat_of_the_protocol_has_a_file_that_says_how_it_was_tried(threat: str) -> None:
    source = threat_file(threat).read_text()
    docstring = source.split('"""')[1]
    assert docstring.startswith(f"Threat {int(threat[1:])}: ")
    assert "Held by: " in docstring
    assert "`mutations.py`" in docstring
    mine = [mutation for mutation in PROTOCOL_MUTATIONS if mutation.threat == threat]
    assert mine
    for mutation in mine:
        assert f"def {mutation.test}(" in source


@pytest.mark.parametrize("mutation", PRIVACY_MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_threat_to_privacy_says_how_it_was_tried(mutation: Mutation) -> None:
    source = threat_file(mutation.threat, mutation.test).read_text()
    docstring = source.split('"""')[1]
    assert docstring.startswith(f"{mutation.threat[0].upper()}-{mutation.threat[1:]}")
    assert f"{mutation.threat} of `mutations.py`" in docstring.replace("\n", " ")
    assert f"def {mutation.test}(" in source


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_check_stands_where_the_table_says(mutation: Mutation) -> None:
    source = (ROOT / mutation.file).read_text()
    assert applied(mutation, source) != source


@pytest.fixture(scope="module")
def verdicts() -> dict[Mutation, Verdict]:
    """All of them, from processes that have loaded the libraries once."""
    return dict(try_all(MUTATIONS))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_without_the_check_the_test_fails(mutation: Mutation, verdicts: dict[Mutation, Verdict]) -> None:
    verdict = verdicts[mutation]
    assert verdict.noticed, verdict.output
    assert verdict.failed == {mutation.test}, verdict.output


@pytest.mark.slow
def test_an_unchanged_copy_passes() -> None:
    """The copy is complete, and the tests run against it: otherwise they would fail for another reason."""
    nursery = Nursery()
    try:
        unchanged = attempt(None, str(threat_file("t04").relative_to(ROOT)), nursery)
    finally:
        nursery.close()
    assert unchanged.status == PASSED, unchanged.output
