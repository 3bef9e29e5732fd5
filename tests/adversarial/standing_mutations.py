"""Mutations (see `mutations.py`) of what says who may take part, and with whose data: w12, w13, g12."""

from tests.adversarial.mutation import Mutation, gone, never

SITES, COORDINATOR = "consortium/sites.py", "consortium/coordinator.py"
SPLITS, STUDY_WORK, PREPARATION = (f"site_agent/{name}.py" for name in ("splits", "study_work", "preparation"))
ENDS = "test_its_session_ends_and_its_next_call_is_refused"
THIEF, SUPERSEDED = "test_with_a_stolen_tls_key_and_signing_keys_of_ones_own", "test_with_a_stolen_certificate"
UNREAD = "test_it_is_in_no_cohort_from_the_next_round_on"

STANDING_MUTATIONS = (
    # w12: suspended or revoked, over an open connection
    Mutation(
        "w12", SITES, "return SiteSuspended(row.site, row.reason) if row.suspended else None", "return None", ENDS
    ),
    gone("w12", COORDINATOR, "session.close(because)", ENDS),
    Mutation(
        "w12",
        SITES,
        "            _require_standing(_site_row(row))\n            chain =",
        "            chain =",
        "test_what_it_signed_does_not_count_even_if_the_call_began_before",
    ),
    # w13: a renewal that is not its own
    never(
        "w13",
        SITES,
        "(asked.signing_key.hex(), asked.ecdsa_key.hex()) != (row.signing_key, row.ecdsa_key)",
        THIEF,
    ),
    never(
        "w13",
        SITES,
        "row is None or peer.spki_sha256.hex() not in (row.spki_sha256, row.next_spki_sha256)",
        f"{SUPERSEDED}_that_was_superseded",
    ),
    Mutation(
        "w13",
        SITES,
        "return spki_sha256 == row.previous_spki_sha256 and now.timestamp() < row.previous_until",
        "return spki_sha256 == row.previous_spki_sha256",
        f"{SUPERSEDED}_that_was_superseded",
    ),
    Mutation(
        "w13",
        SITES,
        "            _require_standing(_site_row(row))\n            assert asked",
        "            assert asked",
        "test_by_somebody_who_may_not_take_part",
    ),
    # g12: a patient who withdrew
    never(
        "g12",
        STUDY_WORK,
        "self._prepared is not None and len(self._store.withdrawals()) != self._prepared.withdrawals",
        UNREAD,
    ),
    gone("g12", PREPARATION, "shutil.rmtree(carried_folder(home, digest), ignore_errors=True)", UNREAD),
    gone("g12", PREPARATION, "events.retake(again, entries.CohortSnapshot, cohort)", UNREAD),
    Mutation("g12", PREPARATION, "        withdrawn=withdrawn,\n", "", "test_nor_in_one_that_is_prepared_later"),
    Mutation(
        "g12",
        SPLITS,
        "np.array([withdrawn.has(one) for one in identifiers], dtype=np.bool_)",
        "np.zeros(len(identifiers), dtype=np.bool_)",
        "test_nor_on_either_side",
    ),
    Mutation(
        "g12",
        SPLITS,
        "return sum(not withdrawn.has(one) for one in identifiers)",
        "return len(identifiers)",
        "test_a_study_that_too_few_are_left_for_is_refused",
    ),
)
