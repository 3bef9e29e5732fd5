"""Mutations (see `mutations.py`) of what callers may say and send, what is taken from sites: w01 to w09, c01 to c05.

What gRPC itself refuses (a message above a channel's limit, compression) has no statement of ours to take out; those
tests say what the options give that the ports are opened with.
"""

from tests.adversarial.mutation import Mutation, never

SERVER, TRANSFER, CODEC = (f"consortium/wire/{name}.py" for name in ("server", "transfer", "codec"))
CERTIFICATES, KIT, COORDINATOR = (
    "consortium/contract/certificates.py",
    "consortium/contract/kit.py",
    "consortium/coordinator.py",
)
HELD, SHAPE = "test_a_key_the_requester_does_not_hold", "test_a_proof_of_the_wrong_shape"

WIRE_MUTATIONS = (
    # w01: no certificate
    Mutation(
        "w01",
        SERVER,
        "require_client_authentication=mutual",
        "require_client_authentication=False",
        "test_everybody_else_is_not",
    ),
    # w02: an older TLS
    never("w02", SERVER, "version != _TLS13", "test_a_call_over_an_older_line_would_be_refused"),
    # w03: another role
    never("w03", CERTIFICATES, "roles is not None and identity.role not in roles", "test_a_site_gives_no_commands"),
    # w04: sizes that lie
    never("w04", SERVER, "header.size_bytes > allowed", "test_a_header_announcing_more_than_the_coordinator_expects"),
    never("w04", TRANSFER, "self._received_bytes != self._header.size_bytes", "test_more_bytes_than_announced"),
    never("w04", TRANSFER, "self._received_bytes > self._header.size_bytes", "test_more_bytes_than_announced"),
    never(
        "w04",
        TRANSFER,
        "self._hash.digest() != self._header.sha256",
        "test_a_coordinator_that_swaps_the_bytes_of_a_download",
    ),
    # w05: messages that break the rules
    never("w05", SERVER, "not isinstance(hello, Hello)", "test_a_session_must_begin_with_hello"),
    never("w05", SERVER, "isinstance(message, Hello)", "test_later_messages_are_checked_as_well"),
    never("w05", SERVER, "site != peer.name", "test_nobody_speaks_in_another_sites_name"),
    never("w05", SERVER, "header.kind not in _UPLOADABLE", "test_a_site_uploads_no_model_and_no_aggregate"),
    never("w05", SERVER, "first is None", "test_an_upload_without_a_header_and_one_with_two"),
    # w06: an unforeseen error
    Mutation(
        "w06",
        "consortium/wire/status.py",
        "peer=peer, error=type(error).__name__, where=where",
        "peer=peer, error=str(error), where=where",
        "test_an_unforeseen_error_is_an_incident_number",
    ),
    # w07: a certificate that ends
    never("w07", CERTIFICATES, "now > one.not_valid_after_utc", "test_the_next_call_after_the_end_is_refused"),
    # w08: certificate requests
    never(
        "w08",
        CERTIFICATES,
        "len(list(alternative)) != 1 or found != [uri]",
        "test_a_request_for_another_site_than_the_tokens",
    ),
    never("w08", CERTIFICATES, "site == COORDINATOR", "test_the_reserved_name_is_nobodys"),
    never(
        "w08",
        CERTIFICATES,
        "len(signature) != SIGNATURE_BYTES or raw != self.proof(key, signature).value",
        SHAPE,
    ),
    never(
        "w08",
        CERTIFICATES,
        "bound_keys.get(_ECDSA) == p256.point_bytes(public)",
        "test_the_tls_key_as_the_ecdsa_key_too",
    ),
    never("w08", CERTIFICATES, "not request.is_signature_valid", "test_a_request_with_a_broken_signature"),
    # w09: kits
    never("w09", KIT, "fingerprint(authority) != record.ca_sha256", "test_another_authority_under_the_same_name"),
    # c01 to c05: what hospitals say out of turn
    Mutation(
        "c01",
        COORDINATOR,
        "if plan is not None and about == (plan.study_digest, plan.round, plan.attempt):",
        "if plan is not None:",
        "test_a_late_refusal_of_attempt_one_is_not_heard_in_attempt_two",
    ),
    Mutation(
        "c02",
        "consortium/driver.py",
        "parameters=self._rooms.models.parameters(row.model_digest),",
        'parameters=(("w", (max(count for _, count in self._prepared().values()),)),),',
        "test_the_layout_follows_the_model_that_is_kept",
    ),
    Mutation(
        "c04",
        "consortium/attempt.py",
        "        if self.state is not before:",
        "        if True:",
        "test_a_repetition_is_not_journalled_and_not_logged",
    ),
    Mutation(
        "c05",
        COORDINATOR,
        "or len(message.values) != running.plan.layout.size_bytes:",
        "or False:",
        "test_a_vector_of_another_length_costs_its_sender_the_round",
    ),
)
