"""The line of `site-agent check` about stewards, over everything that a home may remember of their keys."""

import pytest

from site_agent.check_result import CheckFailed, CheckWarns
from site_agent.check_stewards import check_stewards
from site_agent.site_file import Policy
from site_agent.steward_rows import StewardRow

ADA, BEA = "u:" + "a" * 32, "u:" + "b" * 32
ONE, TWO = Policy(), Policy(approvals_needed=2)


def row(number, steward=ADA, *, standing=True):
    return StewardRow(key=f"{number:064x}", steward=steward, at="2026-01-01T00:00:00.000Z", standing=standing)


def refused(rows, policy=ONE):
    with pytest.raises(CheckFailed) as caught:
        check_stewards(rows, policy)
    return caught.value


@pytest.mark.parametrize(
    ("rows", "policy", "found"),
    [
        ([row(1)], ONE, "1 steward with 1 key; 1 must sign each study"),
        ([row(1), row(2)], ONE, "1 steward with 2 keys; 1 must sign each study"),
        ([row(1), row(2, BEA)], TWO, "2 stewards with 2 keys; 2 must sign each study"),
        ([row(1), row(2, BEA, standing=False)], ONE, "1 steward with 1 key; removed: 1 key; 1 must sign each study"),
        (
            [row(1), row(2, BEA)],
            Policy(may_approve=(row(2).key,)),
            "2 stewards with 2 keys; 1 of them may approve (may_approve); 1 must sign each study",
        ),
    ],
)
def test_it_is_well(rows, policy, found):
    assert check_stewards(rows, policy) == found


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([], "no steward has a key here, so nobody can approve a study"),
        (
            [row(1, standing=False), row(2, standing=False)],
            "no steward has a key here, so nobody can approve a study; removed: 2 keys",
        ),
    ],
)
@pytest.mark.parametrize("policy", [ONE, TWO])
def test_nobody_has_a_key(rows, found, policy):
    warned = refused(rows, policy)
    assert isinstance(warned, CheckWarns)
    assert str(warned) == found
    assert "`site-agent stewards add NAME`" in warned.advice()


@pytest.mark.parametrize(
    ("rows", "policy", "found"),
    [
        ([row(1)], TWO, "1 steward with 1 key; 2 must sign each study"),
        ([row(1), row(2)], TWO, "1 steward with 2 keys; 2 must sign each study"),
        ([row(1), row(2, BEA, standing=False)], TWO, "1 steward with 1 key; removed: 1 key; 2 must sign each study"),
        (
            [row(1), row(2, BEA)],
            Policy(may_approve=(row(1).key,), approvals_needed=2),
            "2 stewards with 2 keys; 1 of them may approve (may_approve); 2 must sign each study",
        ),
        (
            [row(1), row(2, BEA, standing=False)],
            Policy(may_approve=(row(2).key,)),
            "1 steward with 1 key; removed: 1 key; 0 of them may approve (may_approve); 1 must sign each study",
        ),
    ],
)
def test_no_approval_can_be_enough(rows, policy, found):
    failed = refused(rows, policy)
    assert not isinstance(failed, CheckWarns)
    assert str(failed) == f"{found}: no study can be approved"
    assert "policy.approvals_needed" in failed.advice()


def test_the_policy_names_a_key_that_is_none_here():
    policy = Policy(may_approve=(row(1).key, row(2).key, "f" * 64))
    warned = refused([row(1), row(2, BEA, standing=False)], policy)
    assert isinstance(warned, CheckWarns)
    assert str(warned).endswith(f"names what is no steward's key here: {row(2).key[:16]}, {'f' * 16}")
    assert "stewards list" in warned.advice()
