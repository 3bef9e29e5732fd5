"""Mutations (see `mutations.py`) of how a hospital's agent meets a coordinator that lies: s01 to s16, s19."""

from tests.adversarial.mutation import Mutation, gone, never

PLAN_CHECK, WORK, AGENT = (f"site_agent/{name}.py" for name in ("plan_check", "study_work", "agent"))
LIE, FLOORS = "test_every_lie_alone", "test_the_hospitals_own_floors"
TAKEN_BACK = "test_the_approval_is_taken_back"
FORGED, NAMED = "test_the_model_is_not_accepted", "test_the_liar_is_named_in_a_signed_entry_and_the_message_is_kept"
ENROLMENT = "site_agent/enrolment.py"
STILL = "            self._approved()\n        except Declined as error:\n            self._leave()\n"

CONDUCT_MUTATIONS = (
    # s01: a plan that the study does not allow
    gone("s01", PLAN_CHECK, '_same("consortium", plan.consortium, expected.consortium)', LIE),
    gone("s01", PLAN_CHECK, '_same("minimum", plan.minimum, study.sites.minimum)', LIE),
    never("s01", PLAN_CHECK, "plan.round > last", "test_rounds_that_are_over_or_never_come"),
    never(
        "s01",
        PLAN_CHECK,
        "not mine or (mine[0].signing_key, mine[0].ecdsa_key) != (expected.signing_key, expected.ecdsa_key)",
        "test_who_takes_part",
    ),
    gone(
        "s01",
        PLAN_CHECK,
        'raise PlanRefused("signature", "one that does not verify", "the coordinator\'s, as in the kit") from error',
        "test_a_signature_that_is_not_the_coordinators",
    ),
    never("s01", PLAN_CHECK, "study.sites_that_open < expected.minimum_threshold", FLOORS),
    never("s01", PLAN_CHECK, "study.sites_in_a_sum < expected.minimum_sites", FLOORS),
    never("s01", PLAN_CHECK, "now.date() > study.governance.expires", "test_after_the_study_has_expired"),
    # s02: invited again
    never("s02", PLAN_CHECK, "(plan.round, plan.attempt) <= expected.joined", "test_after_the_attempt_was_lost"),
    never("s02", WORK, "self._attempt is not None and self._attempt.plan == plan", "test_twice_in_a_row"),
    # s03: shares, twice
    never("s03", PLAN_CHECK, "expected.released", "test_an_attempt_released_before_a_restart_is_not_joined_again"),
    Mutation(
        "s03",
        WORK,
        "        return is_first\n",
        "        return True\n",
        "test_a_record_that_is_there_already_keeps_the_shares_here",
    ),
    Mutation(
        "s03",
        WORK,
        "or not repeats(request, context=release.context, transcript=release.transcript)",
        "or False",
        "test_after_a_restart_the_same_request_gets_the_same_bytes_until_the_round_is_closed",
    ),
    # s04: exact metrics over sets that differ by one
    Mutation(
        "s04",
        WORK,
        "measured=self._is_exact(attempt.plan),",
        "measured=False,",
        "test_the_next_round_without_one_hospital",
    ),
    # s05: a result of the coordinator's making
    never("s05", WORK, "digest != result.next_model_digest", TAKEN_BACK),
    never("s05", WORK, "result.transcript != release.transcript", TAKEN_BACK),
    never("s05", WORK, "len(raw) != plan.layout.size_bytes", TAKEN_BACK),
    gone(
        "s05",
        WORK,
        "self._stopped = True  # also if the disk refuses what follows",
        "test_the_disk_cannot_save_the_coordinator",
    ),
    # s06: a refusal that tells too much
    Mutation(
        "s06",
        "site_agent/refusals.py",
        'return Refuse("failure", "something failed at this site; its operator can see what")',
        'return Refuse("failure", str(error))',
        "test_no_error_tells_more_than_its_rule",
    ),
    Mutation(
        "s06",
        "site_agent/refusals.py",
        "        case BudgetExceeded():\n            return BUDGET_REFUSED\n",
        '        case BudgetExceeded():\n            return Refuse("budget", str(error))\n',
        "test_no_error_tells_more_than_its_rule",
    ),
    # s07: studies nobody approved
    Mutation(
        "s07",
        AGENT,
        'if decision is not None and decision.decision == "approved" else None',
        "if decision is not None else None",
        "test_rejected_is_not_approved",
    ),
    gone("s07", AGENT, "await self._line.send(refusal, digest)", "test_a_refusal_for_each_and_no_memory"),
    # s08: an update asked for once more
    gone(
        "s08",
        WORK,
        "self._values.released()",
        "test_after_a_release_the_next_attempt_trains_afresh_and_is_charged",
    ),
    # s09: another hospital's keys
    Mutation("s09", "site_agent/store.py", "elif row[1:] != keys[1:]:", "elif False:", "test_also_after_a_restart"),
    Mutation(
        "s09",
        "site_agent/store.py",
        "elif row[1:] != keys[1:]:",
        "elif row[1] != keys[1]:",
        "test_a_peer_of_which_only_the_ecdsa_key_changed",
    ),
    # s10: an approval taken back
    Mutation("s10", WORK, STILL, STILL.replace("self._approved()", "pass"), "test_before_the_upload"),
    Mutation("s10", WORK, STILL, STILL.replace("self._approved()", "pass"), "test_before_the_shares"),
    Mutation(
        "s10",
        WORK,
        "        self._approved()\n        if self._prepared is not None and (how",
        "        if self._prepared is not None and (how",
        "test_at_the_next_invitation",
    ),
    # s11: endorsements
    gone(
        "s11", PLAN_CHECK, "entries.verify_site_entry(data, key if former is None else bytes.fromhex(former))", FORGED
    ),
    Mutation(
        "s11",
        PLAN_CHECK,
        "        if about == (plan.study, RoundNumber(plan.round - 1), plan.model_digest):\n",
        "        if True:\n",
        FORGED,
    ),
    Mutation("s11", PLAN_CHECK, "if len(signers) < plan.threshold:", "if not signers:", FORGED),
    # s12: out of place
    Mutation(
        "s12",
        WORK,
        "if self._attempt is not None and event.context == self._attempt.context:\n                    await self._adv",
        "if self._attempt is not None:\n                    await self._adv",
        "test_noise_of_other_attempts_around_every_message",
    ),
    # s13: a receipt for entries that were not sent
    Mutation(
        "s13",
        AGENT,
        "last = min(receipt.last_sequence, pending[-1][0])",
        "last = receipt.last_sequence",
        "test_every_entry_is_sent",
    ),
    # s14: a certificate for other keys
    Mutation(
        "s14",
        ENROLMENT,
        "certified = (holder.name, holder.spki_sha256, holder.signing_key, holder.ecdsa_key)\n",
        "certified = (kit.site, spki_sha256, holder.signing_key, ecdsa)\n",
        "test_our_signing_keys_beside_another_tls_key",
    ),
    Mutation(
        "s14",
        ENROLMENT,
        "certified = (holder.name, holder.spki_sha256, holder.signing_key, holder.ecdsa_key)\n",
        "certified = (holder.name, holder.spki_sha256, holder.signing_key, ecdsa)\n",
        "test_our_other_keys_beside_another_ecdsa_key",
    ),
    never(
        "s14",
        ENROLMENT,
        "certified != (kit.site, spki_sha256, signing, ecdsa)",
        "test_it_is_refused_and_nothing_is_left",
    ),
    # s15: what is in no list
    Mutation(
        "s15",
        AGENT,
        "        self._store.record_egress(\n",
        "        suppress(Exception)(self._store.record_egress)(\n",
        "test_a_disk_that_refuses_the_record_keeps_the_message_here",
    ),
    # s16: who broke a rule
    Mutation("s16", WORK, "            accused=violation.site,\n", "            accused=self._home.site,\n", NAMED),
    gone("s16", "site_agent/evidence.py", "write_private(folder / digest, data)", NAMED),
    never(
        "s16",
        "site_agent/evidence.py",
        "len(kept) >= KEPT_MAX",
        "test_a_coordinator_that_lies_for_ever_does_not_fill_the_disk",
    ),
    # s19: small cells
    gone(
        "s19",
        "consortium/contract/class_metrics.py",
        "hidden |= values[hidden].sum() < minimum_cell",
        "test_no_missing_cell_has_one_possible_value_only",
    ),
    Mutation(
        "s19",
        "consortium/contract/class_metrics.py",
        "hidden = (values != 0) & (values < minimum_cell)",
        "hidden = values < 0",
        "test_no_cell_that_is_shown_is_of_few",
    ),
)
