"""Every check that keeps a patient's privacy has a test that has been seen to fail without it."""

import pytest

from tests.adversarial.mutations import ROOT, Mutation, Verdict, applied, threat_file, try_all
from tests.adversarial.privacy_mutations import PRIVACY_MUTATIONS


@pytest.mark.parametrize("mutation", PRIVACY_MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_threat_to_privacy_says_how_it_was_tried(mutation: Mutation) -> None:
    source = threat_file(mutation.threat, mutation.test).read_text()
    docstring = source.split('"""')[1]
    assert docstring.startswith(f"{mutation.threat[0].upper()}-{mutation.threat[1:]}")
    assert f"{mutation.threat} of `mutations.py`" in docstring.replace("\n", " ")
    assert f"def {mutation.test}(" in source


@pytest.mark.parametrize("mutation", PRIVACY_MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_check_stands_where_the_table_says(mutation: Mutation) -> None:
    source = (ROOT / mutation.file).read_text()
    assert applied(mutation, source) != source


@pytest.fixture(scope="module")
def verdicts() -> dict[Mutation, Verdict]:
    """All of them, at once."""
    return dict(try_all(PRIVACY_MUTATIONS))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutation", PRIVACY_MUTATIONS, ids=lambda mutation: mutation.name)
def test_without_the_check_the_test_fails(mutation: Mutation, verdicts: dict[Mutation, Verdict]) -> None:
    verdict = verdicts[mutation]
    assert verdict.noticed, verdict.output
    assert verdict.failed == {mutation.test}, verdict.output
