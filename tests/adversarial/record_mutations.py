"""The checks of what the log and evidence hold and who reads them (a17 to a26, s22, w10, w11), as in `mutations.py`."""

from tests.adversarial.mutation import Mutation, gone, never

VERIFY, LOG, RECORD = "audit/verify.py", "audit/log.py", "consortium/record.py"
EGRESS, READERS, WITNESS = "site_agent/egress_log.py", "consortium/log_server.py", "consortium/outside_witness.py"
COMMANDS, WIRE = "consortium/commands.py", "consortium/wire/server.py"

RECORD_MUTATIONS = (
    # a17: a hospital's own evidence
    Mutation(
        "a17",
        VERIFY,
        '    text = open_note("manifest.note", case.bundle.read("manifest.note"), key)\n    own = ',
        '    text = case.bundle.read("manifest.note").decode().partition("\\n\\n")[0] + "\\n"\n    own = ',
        "test_signed_with_another_key",
    ),
    never(
        "a17", VERIFY, 'one["size_bytes"] != body["size_bytes"]', "test_what_left_is_not_what_the_hospital_signed_for"
    ),
    gone("a17", VERIFY, 'check_tiles(case.bundle, leaves, "egress")', "test_an_altered_log_of_what_left"),
    # a20: evidence that was tampered with
    Mutation(
        "a20",
        VERIFY,
        "    if tree_root(leaves) != root:\n        where, said",
        "    if False:\n        where, said",
        "test_a_bit_of_an_entry",
    ),
    never(
        "a20",
        VERIFY,
        'quorum != "none" and not case.policy.is_met(quorum, cosigned)',
        "test_cosignatures_removed",
    ),
    never("a20", VERIFY, "size > len(leaves)", "test_an_older_checkpoint_with_everything_of_its_time"),
    Mutation(
        "a20",
        VERIFY,
        '    if difference:\n        raise Failure(f"report.json, {difference[0]}"',
        '    if False:\n        raise Failure(f"report.json, {difference[0]}"',
        "test_a_number_of_the_report",
    ),
    # a21: the log's process dies
    Mutation(
        "a21",
        RECORD,
        "self._appended = [row.id for row in rows if row.entry in tail]",
        "self._appended = []",
        "test_killed_when_the_outbox_is_in_the_log_and_not_deleted",
    ),
    Mutation(
        "a21",
        "audit/storage_files.py",
        "            if path.is_file():\n                path.unlink()\n",
        "            pass\n",
        "test_one_of_each",
    ),
    # a25: identifiers in the log
    Mutation(
        "a25",
        "consortium/coordinator.py",
        'words = f": {error}" if hasattr(error, "advice") else "; its own log has the rest"',
        'words = f": {error}"',
        "test_nothing_that_identifies_anybody_is_written_down",
    ),
    Mutation(
        "a25",
        COMMANDS,
        "access.denied(caller.subject, known, rule)",
        "access.denied(caller.subject, known, str(error))",
        "test_nothing_that_identifies_anybody_is_written_down",
    ),
    never(
        "a25",
        "audit/fields.py",
        "_UNFIT.search(text) is not None",
        "test_nothing_that_identifies_anybody_is_written_down",
    ),
    # a26: denied, and nowhere written down
    gone(
        "a26",
        WIRE,
        "await self._service.turned_away(peer, method, error)",
        "test_a_certificate_for_another_role",
    ),
    gone(
        "a26",
        "consortium/access_record.py",
        "self.unproven(action, rule)  # who holds a kit has not proven yet who that is",
        "test_every_denial_of_the_coordinator_is_in_its_log",
    ),
    gone(
        "a26",
        COMMANDS,
        "coordinator.rooms.sites.access.denied(caller.subject, known, rule)",
        "test_every_denial_of_the_coordinator_is_in_its_log",
    ),
    gone(
        "a26",
        "consortium/sites.py",
        'self.access.denied(f"site:{peer.name}", "connect", _rule(against, peer.name))',
        "test_every_denial_of_the_coordinator_is_in_its_log",
    ),
    # s22: the hospital's own log altered
    gone("s22", EGRESS, "_require_grown(self.log, self._head)", "test_it_is_noticed_and_named"),
    never("s22", EGRESS, "not exists and self._head.size", "test_it_is_noticed_and_named"),
    never("s22", LOG, "self._tree.root() != checkpoint.root", "test_it_is_noticed_and_named"),
    # w10: readers of the log
    never(
        "w10",
        "audit/tile_requests.py",
        'path != (tile.bundle_path() if entries else tile.path()) or (match["width"] and tile.width >= WIDTH)',
        "test_a_path_that_is_none_gives_nothing",
    ),
    gone(
        "w10",
        READERS,
        'raise h11.RemoteProtocolError("a request with a body", error_status_hint=413)',
        "test_what_is_no_request_of_a_reader",
    ),
    gone("w10", READERS, "context.verify_mode = ssl.CERT_REQUIRED", "test_who_is_no_member_reads_nothing"),
    gone("w10", READERS, "await self._readers.authenticate(peer)", "test_who_is_no_member_reads_nothing"),
    # w11: outside witnesses
    Mutation(
        "w11",
        "audit/witness_protocol.py",
        "witness.verify(text, signature)) for",
        "0) for",
        "test_nothing_but_a_cosignature_is_believed",
    ),
    never("w11", WITNESS, "old > size", "test_a_witness_that_has_seen_more_stops_the_log"),
    never("w11", WITNESS, "len(body) > ANSWER_BYTES_MAX", "test_answers_are_bounded_in_size_and_time"),
)
