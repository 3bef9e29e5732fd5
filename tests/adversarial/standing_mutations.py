"""Mutations (see `mutations.py`) of what says who may take part, with what, and with whose data.

w12, w13, w15, g12; one agent of two (s24), messages of before (w14), and what comes back from an object store (a33).
"""

from tests.adversarial.mutation import Mutation, gone, never

SITES, COORDINATOR = "consortium/sites.py", "consortium/coordinator.py"
SPLITS, STUDY_WORK, PREPARATION = (f"site_agent/{name}.py" for name in ("splits", "study_work", "preparation"))
ENDS = "test_its_session_ends_and_its_next_call_is_refused"
THIEF, SUPERSEDED = "test_with_a_stolen_tls_key_and_signing_keys_of_ones_own", "test_with_a_stolen_certificate"
SESSIONS, OBJECTS = "consortium/sessions.py", "consortium/objects.py"
VECTORS = "consortium/vectors.py"
BOUNDED = "test_a_size_is_bounded_before_anything_is_read_and_kept_to"
WIRE, INVITATIONS = "consortium/wire/server.py", "consortium/invitations.py"
INVITED = "(Role.SITE,), (Role.OPERATOR, Role.ACCOUNT), (Role.INVITED,)"
ELSEWHERE, OVER = "test_any_other_call", "test_a_kit_that_is_not_good_any_more"
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
        "            _require_standing(_site_row(row))\n            if read_at",
        "            if read_at",
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
    # w15: a kit's certificate, used otherwise
    Mutation(
        "w15", WIRE, INVITED, INVITED.replace("(Role.SITE,)", "(Role.SITE, Role.INVITED)"), f"{ELSEWHERE}_of_a_site"
    ),
    Mutation(
        "w15",
        WIRE,
        INVITED,
        INVITED.replace("Role.ACCOUNT)", "Role.ACCOUNT, Role.INVITED)"),
        f"{ELSEWHERE}_of_a_person",
    ),
    Mutation("w15", "consortium/log_server.py", ", role=_MEMBERS)", ")", "test_the_log_over_https"),
    Mutation(
        "w15",
        WIRE,
        INVITED,
        INVITED.replace("(Role.INVITED,)", "tuple(Role)"),
        "test_a_stolen_certificate_enrols_nobody",
    ),
    Mutation(
        "w15",
        SITES,
        "reason = of_another_kit(invitation, request.token) or self._against(",
        "reason = self._against(",
        "test_another_hospitals_invitation",
    ),
    gone(
        "w15",
        "consortium/accounts.py",
        "reason = of_another_kit(invitation, request.token) or reason",
        "test_another_persons_invitation",
    ),
    gone(
        "w15",
        COORDINATOR,
        "await asyncio.to_thread(require_good, self.rooms.database, sites.access, peer.name, sites.clock())",
        OVER,
    ),
    never("w15", INVITATIONS, "used_at is not None", OVER),
    Mutation(
        "w15",
        INVITATIONS,
        'return "the token has expired" if expires_at < now.timestamp() else ""',
        'return ""',
        OVER,
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
    # s24: two copies of one agent
    never(
        "s24",
        SESSIONS,
        "not known and not hello.takes_over",
        "test_the_newer_one_stays_and_the_other_does_not_come_back",
    ),
    never(
        "s24",
        SESSIONS,
        "site in self._by_site and hello.signed_entries < in_log",
        "test_one_that_remembers_less_does_not_end_one_that_remembers_all",
    ),
    Mutation(
        "s24",
        "privacy/secagg/keys.py",
        "Secret(fresh.expose() + hedge.expose())",
        "hedge",
        "test_two_agents_of_one_home_have_no_key_in_common",
    ),
    # w14: what was sent already
    Mutation(
        "w14",
        "consortium/training_round.py",
        "return secagg_attempt.hears(self.machine, context)",
        "return True",
        "test_everything_twice_and_everything_of_before",
    ),
    # a33: an object store that returns other bytes
    gone("a33", VECTORS, "self._check(digest, temporary)", "test_a_model_is_held_against_its_digest"),
    gone("a33", VECTORS, "self._check(digest, temporary)", "test_an_aggregate_is_held_against_its_digest"),
    Mutation(
        "a33",
        "consortium/attempt.py",
        '            raise ObjectAltered(f"what came back',
        '            _ = (f"what came back',
        "test_a_masked_sum_is_held_against_the_journal",
    ),
    never(
        "a33",
        OBJECTS,
        "type(size_bytes) is not int or not 0 <= size_bytes <= OBJECT_BYTES_MAX",
        BOUNDED,
    ),
    Mutation(
        "a33",
        OBJECTS,
        "        if not piece:\n            raise",
        "        if not piece:\n            return\n            raise",
        BOUNDED,
    ),
    never("a33", OBJECTS, "len(piece) > left", "test_a_store_that_sends_more_than_was_asked_for_is_not_believed"),
)
