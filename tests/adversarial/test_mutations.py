"""Every threat has a test, and every test has been seen to fail without the check it covers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adversarial.account_mutations import ACCOUNT_MUTATIONS
from tests.adversarial.code_swap import functions_below, swap, swaps
from tests.adversarial.conduct_mutations import CONDUCT_MUTATIONS
from tests.adversarial.evidence_mutations import EVIDENCE_MUTATIONS
from tests.adversarial.group_mutations import GROUP_MUTATIONS
from tests.adversarial.log_mutations import LOG_MUTATIONS
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
    nursery,
    threat_file,
    try_all,
)
from tests.adversarial.privacy_mutations import PRIVACY_MUTATIONS
from tests.adversarial.record_mutations import RECORD_MUTATIONS
from tests.adversarial.standing_mutations import STANDING_MUTATIONS
from tests.adversarial.steward_mutations import STEWARD_MUTATIONS
from tests.adversarial.wire_mutations import WIRE_MUTATIONS

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


@pytest.mark.parametrize(
    "mutation",
    [
        *PRIVACY_MUTATIONS,
        *LOG_MUTATIONS,
        *EVIDENCE_MUTATIONS,
        *RECORD_MUTATIONS,
        *STANDING_MUTATIONS,
        *STEWARD_MUTATIONS,
        *ACCOUNT_MUTATIONS,
        *CONDUCT_MUTATIONS,
        *GROUP_MUTATIONS,
        *WIRE_MUTATIONS,
    ],
    ids=lambda mutation: mutation.name,
)
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
def made() -> Iterator[Nursery]:
    with nursery() as made:
        yield made


@pytest.fixture(scope="module")
def verdicts(made: Nursery) -> dict[Mutation, Verdict]:
    """All of them, from a process that has loaded everything once."""
    return dict(try_all(MUTATIONS, made))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_without_the_check_the_test_fails(mutation: Mutation, verdicts: dict[Mutation, Verdict]) -> None:
    verdict = verdicts[mutation]
    if verdict.skipped:
        pytest.skip("what the test needs is not installed here")
    assert verdict.noticed, verdict.output
    assert verdict.failed == {mutation.test}, verdict.output


@pytest.mark.slow
@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(
    ("threat", "function"),
    [
        ("t04", ""),
        ("a20", "test_a_bit_of_an_entry"),
        ("a24", "test_an_invitation_on_such_a_log_is_declined"),
        ("a26", "test_a_certificate_for_another_role"),
        ("d08", "test_the_number_of_sampled_patients_is_binomial"),
        ("w10", "test_who_is_no_member_reads_nothing"),
    ],
)
def test_without_a_mutation_it_passes(threat: str, function: str, copied: bool, made: Nursery) -> None:
    """In a nursery, too, with each library: otherwise a test would fail for another reason than the one it has."""
    test = "::".join(filter(None, (str(threat_file(threat).relative_to(ROOT)), function)))
    unchanged = attempt(None, test, made, copied=copied)
    assert unchanged.status == PASSED, unchanged.output


OLD = """
LIMIT = 3
def most(values):
    return max(values)
class Box:
    size = 1
    def fits(self, what):
        return what <= self.size
"""


@pytest.mark.parametrize(
    ("find", "put", "changed"),
    [
        ("return max(values)", "return min(values)", {"most"}),
        ("return what <= self.size", "return True", {"Box.fits"}),
        ("return max(values)", "return max(values)\n\nclass Other:\n    pass", None),
        ("LIMIT = 3", "LIMIT = 4", None),
        ("    size = 1", "    size = 2", None),
        ("def most(values):", "def most(values=()):", None),
    ],
)
def test_only_functions_take_other_code(tmp_path: Path, find: str, put: str, changed: set[str] | None) -> None:
    """What ran when the module was loaded is not changed any more: such a mutation needs a copy."""
    file = tmp_path / "module.py"
    codes = swaps(file, OLD, OLD.replace(find, put))
    assert (codes if codes is None else {old.co_qualname for old, _ in codes}) == changed
    if codes is not None:
        module: dict[str, Any] = {}
        exec(compile(OLD, str(file), "exec"), module)
        assert swap(functions_below(tmp_path), codes) == 1
        assert (module["most"]([1, 2]), module["Box"]().fits(5)) == ((1, False) if changed == {"most"} else (2, True))
