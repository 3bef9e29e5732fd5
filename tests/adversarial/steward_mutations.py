"""The checks that keep an approval a steward's, each with the test that fails when it is taken out (g07, g08)."""

from tests.adversarial.mutation import Mutation, gone, never

APPROVAL, WORK = "site_agent/steward_approval.py", "site_agent/study_work.py"
PREPARATION, VERIFY = "site_agent/preparation.py", "audit/verify.py"
STEWARDS, SITES, KEPT = "audit/stewards.py", "consortium/sites.py", "consortium/steward_keys.py"
NO_SIGNATURE = "test_the_coordinator_takes_no_approval_with_a_signature_that_is_none"
NO_KEY = "test_the_coordinator_takes_no_key_that_no_steward_signed_for"
AGENT_ALONE = "test_the_coordinator_takes_no_approval_by_the_agents_key_alone"

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
    # At the coordinator
    never("g07", STEWARDS, "isinstance(entry, StudyApproved) and keys.ever and not signed", AGENT_ALONE),
    gone("g07", STEWARDS, "check_decision(about, one)", NO_SIGNATURE),
    never("g07", STEWARDS, "keys.ever and one.key not in keys.standing", NO_SIGNATURE),
    never("g07", STEWARDS, "one.sig in used_up", "test_the_coordinator_takes_a_signature_once"),
    gone("g07", KEPT, "known.update(dict.fromkeys(known, True))", "test_the_coordinator_takes_a_signature_once"),
    gone("g07", SITES, "self._stewards.take_decision(entry, entry.study)", AGENT_ALONE),
    gone("g07", SITES, "self._stewards.take_key(entry)", AGENT_ALONE),
    gone("g07", SITES, "self._stewards.write()", AGENT_ALONE),
    gone("g07", SITES, "self._show_unsigned(site, error)", AGENT_ALONE),
    never("g07", SITES, 'error.approves and found is not None and found.decision == "approved"', AGENT_ALONE),
    Mutation(
        "g07",
        SITES,
        "if error.approves and found",
        "if found",
        "test_a_no_that_is_not_what_it_says_ends_an_approval_all_the_same",
    ),
    gone("g07", STEWARDS, "check_key_entry(log, entry)", NO_KEY),
    never("g07", STEWARDS, "entry.signed_by not in self.standing or entry.key not in self.standing", NO_KEY),
    never("g07", STEWARDS, "entry.key in self.standing or entry.key in self.gone", NO_KEY),
    never("g07", STEWARDS, "entry.signed_by not in self.standing", NO_KEY),
    gone(
        "g07",
        "consortium/app.py",
        "read_from_log(database, log)",
        "test_what_a_log_from_before_says_of_keys_is_read_when_it_is_opened",
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
        "not signature_holds(bytes.fromhex(key), base64.b64decode(signature), text)",
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
