"""The checks that keep an approval a steward's, each with the test that fails when it is taken out (g07, g08)."""

from tests.adversarial.mutation import Mutation, gone, never

APPROVAL, WORK = "site_agent/steward_approval.py", "site_agent/study_work.py"
PREPARATION, VERIFY = "site_agent/preparation.py", "audit/verify.py"

STEWARD_MUTATIONS = (
    # At the hospital: whose signature, over what, and how many
    Mutation(
        "g07",
        APPROVAL,
        "one.key in keys and _holds(about, one)",
        "one.key in keys",
        "test_what_counts_is_a_stewards_signature_over_exactly_this",
    ),
    Mutation(
        "g07",
        APPROVAL,
        "one.key in keys and _holds(about, one)",
        "_holds(about, one)",
        "test_what_counts_is_a_stewards_signature_over_exactly_this",
    ),
    Mutation(
        "g07",
        APPROVAL,
        "if one.decision == APPROVED and one.key",
        "if one.key",
        "test_what_counts_is_a_stewards_signature_over_exactly_this",
    ),
    gone(
        "g07",
        APPROVAL,
        "valid &= set(policy.may_approve)",
        "test_a_key_that_was_removed_or_may_not_approve_counts_no_more",
    ),
    Mutation(
        "g07",
        APPROVAL,
        "return TOO_FEW if len(valid) < policy.approvals_needed else None",
        "return None",
        "test_a_key_that_was_removed_or_may_not_approve_counts_no_more",
    ),
    Mutation(
        "g07",
        PREPARATION,
        "frozenset(row.key for row in store.stewards() if row.standing)",
        "frozenset(row.key for row in store.stewards())",
        "test_a_key_that_was_removed_or_may_not_approve_counts_no_more",
    ),
    never(
        "g07",
        PREPARATION,
        "digest_of(decision.document) != digest",
        "test_what_counts_is_a_stewards_signature_over_exactly_this",
    ),
    # In evidence
    never("g07", VERIFY, "approves and has_keys and not signed", "test_with_the_agents_key_alone"),
    never("g07", VERIFY, 'has_keys and one["key"] not in standing', "test_with_a_signature_that_is_none"),
    never(
        "g07",
        VERIFY,
        'one["sig"] in self._void',
        "test_with_the_signature_of_an_approval_that_was_taken_back",
    ),
    never("g07", VERIFY, "key in standing or key in gone", "test_with_a_removed_key_enrolled_again"),
    never("g07", VERIFY, "by not in standing or key not in standing", "test_who_removes_a_steward_is_one"),
    Mutation(
        "g07",
        VERIFY,
        "        elif by not in standing:\n",
        "        elif False:\n",
        "test_with_a_key_that_no_steward_signed_for",
    ),
    never(
        "g07",
        VERIFY,
        "not signature_holds(bytes.fromhex(key), base64.b64decode(signature), statement)",
        "test_with_a_stewards_signature_for_another_key",
    ),
    # In the middle of a round
    Mutation(
        "g08",
        WORK,
        "                if not await self._still_approved(attempt):\n                    return False\n"
        "                await self._send(message)\n",
        "                await self._send(message)\n",
        "test_after_the_upload_nothing_is_confirmed",
    ),
    Mutation(
        "g08",
        WORK,
        "        await self.stop_computing()\n        self._log.warning(",
        "        self._leave()\n        self._log.warning(",
        "test_an_upload_is_broken_off_and_the_coordinator_told",
    ),
    gone("g08", WORK, "self._handling.cancel()", "test_an_upload_is_broken_off_and_the_coordinator_told"),
)
