"""Mutations (see `mutations.py`) of what holds the log and the evidence together: a01 to a14."""

from tests.adversarial.mutation import Mutation, gone, never

VERIFY, LOG, FILES = "audit/verify.py", "audit/log.py", "audit/storage_files.py"
LIES = "test_every_lie_of_the_clause_matrix"

EVIDENCE_MUTATIONS = (
    # a01: an entry changed on the coordinator's disk
    never("a01", LOG, "self._tree.root() != checkpoint.root", "test_the_log_does_not_open"),
    Mutation(
        "a01",
        VERIFY,
        "    if tree_root(leaves) != root:\n        where, said =",
        "    if False:\n        where, said =",
        "test_two_entries_swapped_in_the_evidence",
    ),
    # a02: an entry of a site left out
    never(
        "a02",
        VERIFY,
        "type(number) is not int or not counter < number <= counter + 1 + lost",
        "test_a_dropped_entry",
    ),
    never(
        "a02",
        VERIFY,
        "type(number) is not int or not counter < number <= counter + 1 + lost",
        "test_an_entry_logged_twice",
    ),
    Mutation(
        "a02",
        VERIFY,
        'chain = (name, known.first if known is not None else "")',
        "chain = (name, str(known and known.enrolled))",
        "test_enrolling_a_site_again_with_its_old_key_does_not_restart_its_counter",
    ),
    # a03: words in a site's mouth
    never(
        "a03",
        VERIFY,
        'not signature_holds(key, base64.b64decode(ending[1]), SITE_CONTEXT + data[: ending.start()] + b"}")',
        "test_altered_words_under_a_real_signature",
    ),
    never("a03", VERIFY, "known is None", "test_a_site_that_was_never_enrolled"),
    never(
        "a03",
        VERIFY,
        'any(since < at < leaf for at in revoked.get(record["actor"][5:], []))',
        "test_a_site_that_was_revoked",
    ),
    never(
        "a03",
        VERIFY,
        '[is_away for at, is_away in away.get(record["actor"][5:], []) if since < at < leaf][-1:] == [True]',
        "test_a_site_that_was_suspended",
    ),
    # a04: an older checkpoint
    never("a04", VERIFY, "text != expected", "test_replayed_checkpoint_with_the_tiles_of_its_time"),
    # a05: a log of the forger's own
    Mutation(
        "a05",
        VERIFY,
        "chosen = inside if case.outside_policy is None else case.outside_policy",
        "chosen = inside",
        "test_out_of_band_policy_refuses_it",
    ),
    Mutation(
        "a05",
        VERIFY,
        "keys = [key for key in policy.logs if key.name == origin]",
        "keys = policy.logs",
        "test_another_origin",
    ),
    # a06: figures and the clause matrix
    never("a06", VERIFY, "types.get(leaf) != kind", LIES),
    never(
        "a06",
        VERIFY,
        'not 0 < count <= kinds.get(kind, {"count": 0})["count"] or len(one["leaves"]) > count',
        LIES,
    ),
    never("a06", VERIFY, 'row["status"] not in allowed', LIES),
    never(
        "a06",
        VERIFY,
        'name == "leaves" and not all(type(leaf) is int and 0 <= leaf < size for leaf in one)',
        LIES,
    ),
    # a07: one bit, one file
    never("a07", VERIFY, "hasher.hexdigest() != listed[name]", "test_every_file"),
    Mutation(
        "a07",
        VERIFY,
        "extra = set(case.bundle.sizes) - set(listed) - set(OUTSIDE_MANIFEST)\n    if extra:",
        "extra = set(case.bundle.sizes) - set(listed) - set(OUTSIDE_MANIFEST)\n    if False:",
        "test_a_file_added",
    ),
    # a08: a hostile archive
    never("a08", VERIFY, "len(name) > 240 or _NAME.fullmatch(name) is None", "test_names_that_are_no_plain_paths"),
    never("a08", VERIFY, "name in self.sizes", "test_a_name_twice"),
    never("a08", VERIFY, 'stat.S_ISLNK(member.external_attr >> 16) or name.endswith("/")', "test_a_link"),
    never(
        "a08",
        VERIFY,
        "member.file_size > EXPANSION_FREE + EXPANSION_MAX * member.compress_size",
        "test_a_bomb_is_refused_before_it_is_unpacked",
    ),
    never("a08", VERIFY, "size > size_limit(name)", "test_files_larger_than_their_kind_allows"),
    never(
        "a08",
        VERIFY,
        "member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)",
        "test_encrypted_and_odd_methods",
    ),
    # a09: the log's folder set back
    never("a09", LOG, "found != old", "test_a_checkpoint_set_back_under_a_running_log"),
    never(
        "a09",
        LOG,
        "last >= self._dropped.stop and not self._storage.rows(last, last + 1)",
        "test_a_database_older_than_its_checkpoint",
    ),
    Mutation(
        "a09",
        LOG,
        "            return verify_checkpoint(data, *self.verifiers)\n",
        "            from audit.checkpoint import parse_checkpoint\n\n            return parse_checkpoint(data)\n",
        "test_a_forged_checkpoint_does_not_open",
    ),
    gone("a09", LOG, "self._compare(tile.path(), leaves)", "test_a_tile_that_flips_before_it_is_signed"),
    # a10: a sum over too few, or over others
    never("a10", VERIFY, "len(survivors) < needed", "test_fewer_survivors_than_the_threshold"),
    Mutation(
        "a10",
        VERIFY,
        'needed = max(begun[key]["threshold"], created["body"]["threshold"])',
        'needed = begun[key]["threshold"]',
        "test_a_plan_with_a_lower_threshold_than_the_study",
    ),
    never(
        "a10",
        VERIFY,
        'record["actor"][5:] not in invited',
        "test_a_survivor_that_was_not_invited",
    ),
    Mutation(
        "a10",
        VERIFY,
        '        if key not in begun:\n            raise Failure(where, "a round that was started", "none")\n',
        "        if key not in begun:\n            continue\n",
        "test_a_round_that_was_never_started",
    ),
    # a11: without approval
    Mutation(
        "a11",
        VERIFY,
        "                if name not in approved:\n",
        "                if False:\n",
        "test_no_approval",
    ),
    gone("a11", VERIFY, 'approved.pop(record["actor"][5:], None)', "test_approval_withdrawn_before_the_round"),
    never(
        "a11",
        VERIFY,
        'record["body"]["study_digest"] != created["body"]["study_digest"]',
        "test_approval_of_another_document",
    ),
    never("a11", VERIFY, 'created["body"][field] != digest', "test_another_document_in_the_evidence"),
    # a12: a model of the coordinator's making
    Mutation(
        "a12",
        VERIFY,
        '"a round after those that are closed, each attempt once", "a repetition")\n'
        '            if body["model_digest"] != current:\n',
        '"a round after those that are closed, each attempt once", "a repetition")\n            if False:\n',
        "test_the_next_round_begins_with_another_model",
    ),
    never(
        "a12",
        VERIFY,
        'key in ended and record["body"]["next_model_digest"] != ended[key][1]',
        "test_the_sites_computed_another_model",
    ),
    Mutation(
        "a12",
        VERIFY,
        '"a round that was started and not closed", "another")\n            if body["model_digest"] != current:\n',
        '"a round that was started and not closed", "another")\n            if False:\n',
        "test_a_round_closed_over_another_model_than_it_began_with",
    ),
    never("a12", VERIFY, "not same and not _keeps_best(case)", "test_an_evaluation_that_changes_the_model"),
    never("a12", VERIFY, "key not in begun or key[0] <= last_round", "test_a_round_closed_twice"),
    Mutation(
        "a12",
        VERIFY,
        'elif kind in ("study.completed", "model.released") and body["model_digest"] != current:',
        "elif False:",
        "test_another_model_is_released",
    ),
    Mutation(
        "a12",
        VERIFY,
        '    if digest != expected:\n        raise Failure(f"model.safetensors',
        '    if False:\n        raise Failure(f"model.safetensors',
        "test_another_file_in_the_archive",
    ),
    never("a12", VERIFY, "released and case.site is None", "test_a_released_model_without_its_file"),
    # a14: entries that are none
    never(
        "a14",
        VERIFY,
        "not right or [key for key in _ENTRY_TEXTS if not isinstance(record.get(key), str)]",
        "test_what_is_no_entry",
    ),
    never("a14", VERIFY, "len(record) != len(pairs)", "test_what_is_no_entry"),
    never("a14", VERIFY, 'record["type"] != "log.opened"', "test_a_log_that_begins_in_the_middle"),
    never("a14", VERIFY, "case.opened is None", "test_an_empty_log"),
    never("a14", VERIFY, "not set(signed) & set(chain)", "test_a_first_entry_that_names_another_key"),
)
