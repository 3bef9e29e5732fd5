"""The checks with which a hospital watches the log, and believes its key (a22 to a24, a27), each with its test."""

from tests.adversarial.mutation import Mutation, gone, never

WITNESS, MIRROR, WITNESSES = "audit/witness.py", "audit/mirror.py", "consortium/witnesses.py"
FOLLOWED, WATCH = "site_agent/followed_log.py", "site_agent/log_watch.py"
VAULT, VAULT_FILES, ERASURE = "audit/vault.py", "audit/vault_files.py", "audit/erasure.py"
KEYS, VERIFY, APP = "audit/key_rotation.py", "audit/verify.py", "consortium/app.py"

LOG_MUTATIONS = (
    gone("a22", WITNESS, "_require_growth(remembered, found, request.proof)", "test_two_roots_of_one_size"),
    never("a22", WITNESS, "request.old_size > found.size", "test_the_log_has_become_shorter"),
    never("a22", MIRROR, "found != new.root", "test_other_entries_than_the_signed_ones_are_sent"),
    never(
        "a22",
        FOLLOWED,
        "copy.root_at(size) != signed.checkpoint.root",
        "test_another_hospital_has_cosigned_another_history",
    ),
    gone("a22", FOLLOWED, "key.verify(signed.note.text, line)", "test_a_line_that_nobody_made_is_no_evidence"),
    Mutation(
        "a22",
        WITNESSES,
        "        if shown.size > written.size:\n",
        "        if shown.size > written.size:\n            return\n        if False:\n",
        "test_a_coordinator_restored_from_a_backup_signs_nothing_more",
    ),
    Mutation(
        "a22",
        WITNESSES,
        "elif written.root_at(shown.size) != shown.root:",
        "elif False:",
        "test_a_coordinator_restored_from_a_backup_signs_nothing_more",
    ),
    gone("a22", WITNESSES, "written.stop(set_back)", "test_a_coordinator_restored_from_a_backup_signs_nothing_more"),
    never("a23", FOLLOWED, "self.own_entries < handed_over", "test_an_entry_that_was_handed_over_is_not_there"),
    never("a23", FOLLOWED, "signed != data", "test_a_later_entry_stands_where_a_withheld_one_belongs"),
    never("a23", FOLLOWED, "actor == self._actor", "test_an_entry_this_hospital_never_signed"),
    Mutation(
        "a23",
        FOLLOWED,
        'entries.verify_site_entry(data, bytes.fromhex(self._site_keys.key_of(site) or ""))',
        "entries.parse_entry(data)",
        "test_a_witness_key_that_the_other_hospital_did_not_sign",
    ),
    gone(
        "a24",
        "site_agent/study_work.py",
        "self._require_witnesses(self._prepared.study)",
        "test_an_invitation_on_such_a_log_is_declined",
    ),
    Mutation(
        "a24",
        FOLLOWED,
        "return sizes[needed - 1] if 0 < needed <= len(sizes) else 0",
        "return sizes[0]",
        "test_what_others_have_not_cosigned_is_unwitnessed",
    ),
    gone("a27", KEYS, "verify_note(note, [old])", "test_the_new_key_is_replaced_by_one_that_it_did_not_sign_for"),
    never("a27", KEYS, "old != self.newest", "test_the_old_key_names_a_second_successor"),
    Mutation(
        "a27",
        KEYS,
        "        if new.name != old.name:\n            raise",
        "        if False:\n            raise",
        "test_a_key_of_another_name",
    ),
    never(
        "a27", FOLLOWED, 'record["actor"] != entries.COORDINATOR', "test_a_hospital_says_that_the_log_has_another_key"
    ),
    Mutation(
        "a27",
        "site_agent/log_mirror.py",
        "        self._mirror.believe(*reversed(keys.accepted))\n        log.info",
        "        self._mirror.believe(*self._mirror.verifiers, keys.newest)\n        log.info",
        "test_a_retired_key_signs_on",
    ),
    never("a27", VERIFY, 'policy.quorum == "none"', "test_a_policy_without_a_quorum_follows_nobody"),
    never("a27", VERIFY, "not policy.is_met(policy.quorum, cosigned)", "test_too_few_witnesses_saw_the_change"),
    Mutation(
        "a27",
        VERIFY,
        "        if not signers(where, note, [old]):\n            continue",
        "        if False:\n            continue",
        "test_nobody_signed_the_change",
    ),
    never(
        "a27",
        VERIFY,
        "stone_size > size or tree_root(leaves[:stone_size]) != stone_root",
        "test_the_witnesses_saw_another_log_change_its_key",
    ),
    never(
        "a27",
        VERIFY,
        'said_by != ("key.rotated", "coordinator", old.vkey)',
        "test_the_stepping_stone_lies_beside_an_entry_that_is_no_change",
    ),
    never(
        "a27",
        VERIFY,
        "new.name != old.name or (changes and changes[-1][1].vkey != old.vkey)",
        "test_evidence_changes_to_a_key_of_another_name",
    ),
    never("a27", VERIFY, "new.name != old.name", "test_a_stepping_stone_to_a_key_of_another_name"),
    never("a27", VERIFY, "not set(signed) - retired", "test_a_thief_of_the_retired_key_goes_on_with_the_log"),
    never(
        "a27",
        VERIFY,
        "changes and changes[0][0].vkey != first",
        "test_a_log_that_begins_with_another_key_than_it_changed_from",
    ),
    Mutation(
        "a28",
        VAULT,
        "salt=entropy(SALT_BYTES)",
        "salt=bytes(SALT_BYTES)",
        "test_a_right_guess_looks_like_a_wrong_one",
    ),
    Mutation(
        "a28",
        VAULT,
        "COMMITMENT_PREFIX + salt + payload",
        "COMMITMENT_PREFIX + payload",
        "test_a_right_guess_looks_like_a_wrong_one",
    ),
    never(
        "a28",
        "audit/entry_types/frame.py",
        "self.document_sha256 is not None and self.document_commitment is not None",
        "test_no_plain_hash_stands_beside_the_salted_one",
    ),
    Mutation(
        "a28",
        VAULT_FILES,
        "hmac.new(bytes.fromhex(self.key), message",
        'hmac.new(b"", message',
        "test_a_pseudonym_cannot_be_guessed_from_the_name",
    ),
    Mutation(
        "a29",
        VAULT_FILES,
        "left -= file.write(bytes(min(left, _CHUNK)))",
        "left = 0",
        "test_another_name_of_the_same_file_has_only_zeros",
    ),
    gone("a29", ERASURE, "vault.destroy(commitment[:ID_DIGITS])", "test_nothing_of_it_is_in_any_file_of_the_home"),
    gone("a29", ERASURE, "vault.forget(order.forgotten)", "test_nothing_of_it_is_in_any_file_of_the_home"),
    gone("a29", ERASURE, "log.forget(order.forgotten, name)", "test_a_name_is_nowhere_in_the_agents_database_either"),
    Mutation(
        "a29",
        ERASURE,
        "        for order in due:\n            for commitment in order.commitments:\n",
        "        for order in due:\n"
        "            for fields in _said_of(order, mentions(log.entries())):\n"
        '                log.write({"on_behalf": order.on_behalf, "executed_on": order.executed_on, **fields})\n'
        "            for commitment in order.commitments:\n",
        "test_killed_anywhere_the_log_never_says_more_than_was_destroyed",
    ),
    Mutation(
        "a29",
        ERASURE,
        " and one not in said.erased]",
        "]",
        "test_killed_anywhere_the_log_never_says_more_than_was_destroyed",
    ),
    never("a30", MIRROR, "leaf not in self._dropped", "test_a_hash_in_place_of_an_entry_that_no_list_has"),
    gone("a30", MIRROR, "self._require_named()", "test_a_list_that_no_entry_names"),
    Mutation(
        "a30",
        FOLLOWED,
        "latest >= entry.older_than or entry.older_than > allowed",
        "entry.older_than > allowed",
        "test_a_drop_of_what_is_not_old_enough_is_not_cosigned",
    ),
    Mutation(
        "a30",
        FOLLOWED,
        "latest >= entry.older_than or entry.older_than > allowed",
        "latest >= entry.older_than",
        "test_a_drop_of_what_is_not_old_enough_is_not_cosigned",
    ),
    Mutation(
        "a30",
        FOLLOWED,
        "own is not None and merkle.leaf_hash(own) == leaf_hash",
        "own is not None",
        "test_a_hospital_that_comes_later_follows_a_log_that_dropped_entries",
    ),
    Mutation(
        "a30",
        "audit/log.py",
        "if applied is None:",
        "if not fits:",
        "test_a_log_drops_nothing_that_it_did_not_announce",
    ),
    Mutation(
        "a30",
        "audit/log.py",
        "        if found is None:\n            raise LogCorrupt(dropped.FILE",
        "        if False:\n            raise LogCorrupt(dropped.FILE",
        "test_a_log_drops_nothing_that_it_did_not_announce",
    ),
    Mutation(
        "a30",
        "audit/verify.py",
        'not other["ts"][:10] < body["older_than"]',
        "False",
        "test_what_is_left_is_younger_than_what_was_to_go",
    ),
    gone("a30", "audit/verify.py", "_check_dropped(case)", "test_an_entry_that_was_kept_is_missing"),
    Mutation(
        "a30",
        "audit/verify.py",
        "elif not is_dropped(gone, leaf):",
        "elif False:",
        "test_an_entry_that_was_kept_is_missing",
    ),
    # a31: a coordinator on an older copy of its log
    gone("a31", APP, "require_remembered(database, log)", "test_the_logs_folder_alone_is_from_a_backup"),
    never(
        "a31",
        APP,
        "not await _looked_back(coordinator, signals.stop)",
        "test_a_hospital_remembers_more_and_nothing_is_signed",
    ),
    Mutation(
        "a31",
        "consortium/witness_rounds.py",
        "                await require_not_proven(rooms, witness)\n",
        "",
        "test_an_outside_witness_remembers_more_and_shows_it",
    ),
    # a32: two coordinators on copies of one home
    gone(
        "a32",
        WITNESSES,
        "self.require_not_set_back(site, position)",
        "test_an_honest_one_hears_of_the_other_from_a_hospital",
    ),
    gone(
        "a32",
        WATCH,
        "await self._object(self._mirror, broken)",
        "test_from_one_that_goes_on_all_the_same_a_hospital_walks_away_with_both",
    ),
    Mutation(
        "a32",
        "consortium/witness_rounds.py",
        "    try:\n        await require_not_proven(rooms, witness)\n",
        "    try:\n        pass\n",
        "test_a_witness_that_both_ask_shows_each_what_it_cosigned_of_the_other",
    ),
)
