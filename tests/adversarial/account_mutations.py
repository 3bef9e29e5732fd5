"""The checks of what people's accounts may do and who signs a study (g09, g10), as in `mutations.py`."""

from tests.adversarial.mutation import Mutation, gone, never

VERIFY, OWNER, TOKENS = "audit/verify.py", "site_agent/owner.py", "consortium/tokens.py"
COMMANDS, ACCOUNTS, COORDINATOR = (f"consortium/{name}.py" for name in ("commands", "accounts", "coordinator"))

ACCOUNT_MUTATIONS = (
    # g09: a study in somebody's name
    gone(
        "g09",
        COMMANDS,
        "verify(submission, study.digest(), here)",
        "test_a_statement_that_is_not_about_this_study_here",
    ),
    gone("g09", COMMANDS, "require_fresh(submission, now)", "test_a_statement_of_another_time"),
    never("g09", COMMANDS, "submission.owner_key != caller.signing_key", "test_a_statement_of_somebody_else"),
    gone(
        "g09", OWNER, "verify(submission, document.study_digest, here)", "test_a_hospital_checks_the_signature_itself"
    ),
    never(
        "g09", OWNER, "logged is not NOT_THERE and logged != submission", "test_a_hospital_is_shown_what_the_log_has"
    ),
    never(
        "g09",
        OWNER,
        "policy.allowed_owners and (owner is None or owner.fingerprint not in policy.allowed_owners)",
        "test_a_hospital_that_names_owners_approves_nobody_elses",
    ),
    never(
        "g09",
        VERIFY,
        'not signature_holds(key, base64.b64decode(body["owner_signature"]), OWNER_CONTEXT + text)',
        "test_evidence_with_a_signature_that_does_not_hold",
    ),
    never(
        "g09",
        VERIFY,
        'accounts and accounts[-1] != body["owner_key"]',
        "test_evidence_with_another_key_than_the_accounts",
    ),
    # g10: an account beyond its role
    gone(
        "g10",
        COMMANDS,
        "require_role(caller, command)",
        "test_every_command_that_a_role_may_not_give_is_refused_and_logged",
    ),
    gone(
        "g10",
        COMMANDS,
        'require_study(caller, command, coordinator.rooms.studies.owner(_text(read, "study")))',
        "test_a_scientist_has_no_hand_in_somebody_elses_study",
    ),
    gone("g10", COMMANDS, 'read["by"] = caller.account', "test_nobody_records_in_somebody_elses_name"),
    gone(
        "g10",
        COMMANDS,
        "coordinator.rooms.sites.access.denied(caller.subject, known, rule)",
        "test_every_command_that_a_role_may_not_give_is_refused_and_logged",
    ),
    gone(
        "g10",
        COORDINATOR,
        'require_role(await self._caller(peer), "status")',
        "test_a_certificate_outlives_neither_its_role_nor_its_account",
    ),
    gone(
        "g10",
        COORDINATOR,
        'require_role(await self._caller(peer), "audit.log")',
        "test_a_certificate_outlives_neither_its_role_nor_its_account",
    ),
    never(
        "g10",
        COORDINATOR,
        "peer.role is not Role.ACCOUNT",
        "test_a_hospital_gives_no_commands_whatever_the_wire_lets_through",
    ),
    Mutation(
        "g10",
        ACCOUNTS,
        "elif found.revoked_at is not None:",
        "elif False:",
        "test_a_certificate_outlives_neither_its_role_nor_its_account",
    ),
    Mutation(
        "g10",
        ACCOUNTS,
        " or found.spki_sha256 != peer.spki_sha256.hex():",
        ":",
        "test_a_certificate_outlives_neither_its_role_nor_its_account",
    ),
    # g11: forged tokens
    Mutation(
        "g11",
        TOKENS,
        'usable = one.get("use", "sig") == "sig" and one.get("alg", algorithm) == algorithm',
        'usable = one.get("alg", algorithm) == algorithm',
        "test_a_token_of_another_key",
    ),
    Mutation(
        "g11",
        TOKENS,
        'options={"require": ["aud", "exp", "iat", "iss", "sub"], "strict_aud": False},',
        'options={"require": [], "verify_aud": False, "verify_iss": False},',
        "test_a_token_that_is_not_for_this_person_here_and_now",
    ),
    never(
        "g11",
        TOKENS,
        'claims["exp"] - claims["iat"] > LIFE_S_MAX',
        "test_a_token_that_is_not_for_this_person_here_and_now",
    ),
    Mutation(
        "g11",
        TOKENS,
        "if len(roles) != 1:",
        "if not roles:",
        "test_a_token_that_is_not_for_this_person_here_and_now",
    ),
    Mutation(
        "g11",
        TOKENS,
        "(kid not in self._keys and age > AGAIN_S)",
        "kid not in self._keys",
        "test_the_provider_is_not_asked_by_whoever_sends_tokens",
    ),
)
