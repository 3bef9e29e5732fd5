"""The checks that keep a hospital's signing keys its own, each with the test that fails when it is taken out (g13)."""

from tests.adversarial.mutation import Mutation, gone, never

KEYS, VERIFY, SITES = "audit/site_keys.py", "audit/verify.py", "consortium/sites.py"
ROWS, PLAN_CHECK, ENTRIES = "site_agent/own_key_rows.py", "site_agent/plan_check.py", "audit/entries.py"

FOLLOWED = "test_no_hospital_follows_a_forged_change"
CHECKED = "test_nor_does_evidence_with_one_pass"
TAKEN_IN = "test_the_coordinator_takes_in_only_what_holds"
AFTER = "test_from_the_change_on_the_old_keys_are_good_for_nothing"
CHAINS = "test_two_chains_never_come_to_one_key"
REMEMBERED = "test_only_the_keys_that_are_remembered_are_moved"

KEY_MUTATIONS = (
    # Whose word a change is: at the coordinator before it is taken in, at every hospital that reads the log
    never("g13", KEYS, "chain.revoked or chain.suspended", FOLLOWED),
    never("g13", KEYS, "said.old.signing != chain.key or (chain.ecdsa and said.old.ecdsa != chain.ecdsa)", FOLLOWED),
    never("g13", KEYS, "{said.new.signing, said.new.ecdsa} & (self._ever | {said.old.ecdsa})", FOLLOWED),
    never("g13", KEYS, "stewards.begun_anew", FOLLOWED),
    never("g13", KEYS, "stewards.standing.get(entry.steward_key) != entry.steward", FOLLOWED),
    gone("g13", KEYS, "check_signatures(self._log, entry)", FOLLOWED),
    gone("g13", KEYS, "entries.verify_site_entry(data, bytes.fromhex(chain.key))", FOLLOWED),
    gone("g13", KEYS, "self._chains[said.site, said.old.signing] = retired", FOLLOWED),
    Mutation("g13", KEYS, '        ("the steward", entry.steward_key, entry.steward_sig),\n', "", FOLLOWED),
    Mutation("g13", KEYS, '        ("the new signing key", entry.signing_key, entry.signing_sig),\n', "", FOLLOWED),
    gone(
        "g13",
        KEYS,
        "_verify_ecdsa(bytes.fromhex(entry.ecdsa_key), base64.b64decode(entry.ecdsa_sig), statement)",
        FOLLOWED,
    ),
    # In evidence
    never("g13", VERIFY, "old[0] != chain[1] or old[1] != self._ecdsa.get(chain, old[1])", CHECKED),
    never("g13", VERIFY, "chain in self._closed", CHECKED),
    never(
        "g13",
        VERIFY,
        'self._stewards.get(chain, {}).get(body["steward_key"]) != body["steward"]',
        CHECKED,
    ),
    never("g13", VERIFY, "{*new} & {*self._ever, old[1]}", CHECKED),
    Mutation("g13", VERIFY, "            if not holds:\n", "            if False:\n", CHECKED),
    Mutation(
        "g13",
        VERIFY,
        "                self._closed.add(chain)\n                gone.update",
        "                gone.update",
        CHECKED,
    ),
    Mutation("g13", VERIFY, "return result is not None and result[0] % _N == r", "return True", CHECKED),
    never(
        "g13", ENTRIES, "entry.old_signing_key != keys[site] or new in ever", "test_two_chains_never_come_to_one_key"
    ),
    # At the coordinator
    never("g13", SITES, "changed.old != self._now or _taken(self._connection, keys)", TAKEN_IN),
    Mutation(
        "g13", SITES, "return row.stands and certified == (row.signing_key, row.ecdsa_key)", "return row.stands", AFTER
    ),
    Mutation(
        "g13",
        SITES,
        "                    if chain.has(entry):\n                        return entry\n            raise",
        "                    return entry\n            raise",
        AFTER,
    ),
    # What a hospital remembers
    Mutation(
        "g13",
        ROWS,
        "AND signing_key = ? AND ecdsa_key = ?",
        "AND (signing_key = ? OR TRUE) AND ecdsa_key = ?",
        REMEMBERED,
    ),
    Mutation(
        "g13",
        ROWS,
        "AND signing_key = ? AND ecdsa_key = ?",
        "AND signing_key = ? AND (ecdsa_key = ? OR TRUE)",
        REMEMBERED,
    ),
    Mutation(
        "g13",
        ROWS,
        "WHERE key = ? AND standing",
        "WHERE key = ?",
        "test_a_steward_who_was_removed_a_moment_ago_moves_nothing",
    ),
    never(
        "g13",
        PLAN_CHECK,
        "mine and mine[0].signing_key in expected.former_keys",
        "test_a_plan_from_before_its_own_change_is_not_answered",
    ),
    Mutation(
        "g13",
        PLAN_CHECK,
        "key if former is None else bytes.fromhex(former)",
        "key",
        "test_an_endorsement_by_a_former_key_counts_if_the_log_had_it_before",
    ),
)
