"""The checks that stop the threats, each with the test that fails when it is taken out.

Here are those of protocol section 8 (t01 to t27); the patients' privacy (d01 to d27) is in `privacy_mutations.py`, and
how a hospital watches the log (a22 to a24) in `log_mutations.py`.

A mutation names one statement by its exact text, which stands exactly once in its file, and what is put in its place:
usually the same `if` with a condition that never holds. `test_mutations.py` applies one mutation, runs the test in a
process of its own (`mutant_nursery.py`), and demands that it fails. So "this test would notice" is tried, not claimed,
and tried again whenever the code changes. The mutation goes into the functions that are loaded; where that is not
possible, or the test does not notice it there, into a copy of the packages.

    python -m tests.adversarial.mutations            try all, with a line for each
    python -m tests.adversarial.mutations t04 d21    only the mutations of these threats
"""

import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.adversarial.account_mutations import ACCOUNT_MUTATIONS
from tests.adversarial.conduct_mutations import CONDUCT_MUTATIONS
from tests.adversarial.evidence_mutations import EVIDENCE_MUTATIONS
from tests.adversarial.group_mutations import GROUP_MUTATIONS
from tests.adversarial.key_mutations import KEY_MUTATIONS
from tests.adversarial.log_mutations import LOG_MUTATIONS
from tests.adversarial.mutation import Mutation, gone, never
from tests.adversarial.privacy_mutations import PRIVACY_MUTATIONS
from tests.adversarial.record_mutations import RECORD_MUTATIONS
from tests.adversarial.standing_mutations import STANDING_MUTATIONS
from tests.adversarial.steward_mutations import STEWARD_MUTATIONS
from tests.adversarial.wire_mutations import WIRE_MUTATIONS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("privacy", "consortium", "site_agent", "audit")
LINKED = ("tests", "configs", "docs", "pyproject.toml")
FAILED, PASSED = 1, 0  # pytest's, as all others that are not here
TIMED_OUT, NOT_APPLIED, DIED = -1, -2, -3
PLUGINS = ("no:cacheprovider", "pytest_asyncio.plugin", "pytest_timeout", "_hypothesis_pytestplugin")
AT_ONCE = 3
"""More than there are cores: without its check a test often waits, up to its limit, for what does not come any more."""
TIMEOUT_S = 300
OWN_PROCESSES = frozenset({"a20", "a21", "d27", "d28"})
"""Threats whose tests start processes: what these load is a copy, or it has the check."""

SITE, COORDINATOR, CHECKS = (f"privacy/secagg/{name}.py" for name in ("site", "coordinator", "checks"))
CONTEXT, COHORT, KEYS = (f"privacy/secagg/{name}.py" for name in ("context", "cohort", "keys"))
SUITES, UNMASKING, ENCODING = "privacy/secagg/suites.py", "privacy/secagg/unmasking.py", "privacy/encoding.py"
PLAN_CHECK, STUDY_WORK, VALUES = (f"site_agent/{name}.py" for name in ("plan_check", "study_work", "round_values"))
CHILD = "site_agent/training_child"
ANSWERS = f"{CHILD}/answers.py"
SIGNATURE = "    if not context.algorithms.signature_holds(entry.signing_key, payload, signature):\n"
NEVER = "    if False:\n"


PROTOCOL_MUTATIONS = (
    # 1: alive and dropped
    never(
        "t01",
        SITE,
        "not sorted_once(event.survivors) or not set(event.survivors) <= set(keyed.members)",
        "test_a_survivor_named_twice_is_refused",
    ),
    Mutation(
        "t01",
        SITE,
        "for h in keyed.held if h.owner not in survivors",
        "for h in keyed.held",
        "test_released_lists_never_overlap",
    ),
    never(
        "t01",
        CHECKS,
        "[share.owner for share in shares] != list(owners)",
        "test_the_coordinator_takes_no_shares_beyond_the_two_lists",
    ),
    # 2: different survivor sets
    never(
        "t02", CHECKS, "confirmation.transcript != transcript", "test_confirmations_of_two_survivor_sets_do_not_add_up"
    ),
    never("t02", SITE, "len(signers) < attempt.context.threshold", "test_nor_is_one_side_enough"),
    never("t02", CHECKS, "header.keying_hash != keying", "test_a_site_refuses_headers_of_another_key_schedule"),
    # 3: a quorum of bad confirmations
    never(
        "t03",
        SITE,
        "not sorted_once(signers) or not set(signers) <= set(state.survivors)",
        "test_one_confirmation_twice",
    ),
    never(
        "t03",
        SITE,
        "not sorted_once(signers) or not set(signers) <= set(state.survivors)",
        "test_a_colluding_site_that_is_no_survivor_has_no_vote",
    ),
    never("t03", SITE, "len(signers) < attempt.context.threshold", "test_too_few"),
    Mutation("t03", CHECKS, SIGNATURE, NEVER, "test_a_forged_signature"),
    never("t03", CHECKS, "found != expected", "test_a_confirmation_of_an_earlier_attempt"),
    # 4: a second request
    never(
        "t04",
        SITE,
        "not repeats(event, context=state.context, transcript=state.transcript)",
        "test_a_second_request_for_another_sum_finds_nothing",
    ),
    Mutation(
        "t04",
        SITE,
        "return done, (released, Send(message=shares))",
        "return done, (Send(message=shares), released)",
        "test_the_release_is_recorded_before_the_shares_are_sent",
    ),
    Mutation(
        "t04",
        SITE,
        "    return done, (released, Send(message=shares))\n",
        "    return replace(state, transcript=state.transcript), (released, Send(message=shares))\n",
        "test_a_second_request_for_the_same_sum_gets_the_same_bytes_and_no_second_release",
    ),
    # 5: replay
    never("t05", CHECKS, "found != expected", "test_a_request_of_the_old_attempt_is_refused"),
    Mutation(
        "t05", CONTEXT, '            "attempt": self.attempt,\n', "", "test_nor_does_it_help_to_rewrite_its_context"
    ),
    Mutation(
        "t05",
        COORDINATOR,
        "    if message.context != state.attempt.digest:\n        # An honest",
        "    if False:\n        # An honest",
        "test_the_coordinator_ignores_what_comes_late_from_the_old_attempt",
    ),
    # 6: substituted keys
    Mutation("t06", CHECKS, SIGNATURE, NEVER, "test_a_substituted_key_breaks_the_signature"),
    never("t06", SITE, "state.bundle not in event.bundles", "test_a_sites_own_bundle_cannot_be_changed_or_left_out"),
    never(
        "t06", SITE, "not sorted_once([bundle.site for bundle in event.bundles])", "test_a_site_listed_twice_is_refused"
    ),
    # 7: one key under two names
    gone(
        "t07",
        SITE,
        "check_no_key_twice(attempt.context.algorithms, event.bundles)",
        "test_a_site_refuses_it_and_names_the_signer",
    ),
    gone(
        "t07",
        COORDINATOR,
        "check_no_key_twice(context.algorithms, (*state.answers, message))",
        "test_an_honest_coordinator_refuses_it_first",
    ),
    # 8: malformed keys
    gone(
        "t08",
        CHECKS,
        "context.algorithms.parse_public_key(public)",
        "test_sites_and_coordinator_refuse_it_and_name_the_signer",
    ),
    gone("t08", SUITES, "_PROBE.exchange(curve)", "test_sites_and_coordinator_refuse_it_and_name_the_signer"),
    never(
        "t08",
        SUITES,
        'int.from_bytes(curve_bytes, "little") >= _X25519_PRIME',
        "test_sites_and_coordinator_refuse_it_and_name_the_signer",
    ),
    never(
        "t08",
        CHECKS,
        "len(bundle.self_mask_commitment) != HASH_BYTES",
        "test_a_commitment_of_another_length_is_refused",
    ),
    # 9: another model
    Mutation(
        "t09",
        CONTEXT,
        '            "model": self.model_hash.hex(),\n',
        "",
        "test_a_site_that_was_shown_something_else_is_not_understood",
    ),
    Mutation(
        "t09",
        CONTEXT,
        '            "plan": self.plan_hash.hex(),\n',
        "",
        "test_nor_do_its_boxes_or_masks_fit_the_others",
    ),
    gone(
        "t09",
        PLAN_CHECK,
        '_same("model", plan.model_digest, model)',
        "test_a_hospital_joins_for_the_model_it_computed_itself_and_no_other",
    ),
    # 10: another threshold, minimum, clip, scale
    Mutation(
        "t10",
        CONTEXT,
        '            "threshold": self.threshold,\n',
        "",
        "test_a_site_that_was_shown_something_else_is_not_understood",
    ),
    Mutation(
        "t10",
        CONTEXT,
        '            "minimum": self.minimum,\n',
        "",
        "test_the_coordinator_itself_hears_only_one_context",
    ),
    Mutation(
        "t10",
        ENCODING,
        "float(lane.clip), float(lane.scale)]",
        "float(lane.scale)]",
        "test_nor_do_its_boxes_or_masks_fit_the_others",
    ),
    Mutation(
        "t10",
        ENCODING,
        "float(lane.clip), float(lane.scale)]",
        "float(lane.clip)]",
        "test_nor_do_its_boxes_or_masks_fit_the_others",
    ),
    gone(
        "t10",
        PLAN_CHECK,
        '_same("threshold", plan.threshold, study.aggregation.threshold)',
        "test_a_hospital_takes_them_from_the_study_it_approved",
    ),
    never("t10", PLAN_CHECK, "plan.layout not in allowed", "test_a_hospital_takes_them_from_the_study_it_approved"),
    # 11: certificates
    never("t11", CONTEXT, "len(column) != n", "test_doubled_sites_and_coordinator_refuse_the_attempt"),
    never(
        "t11",
        CONTEXT,
        "list(self.sites) != sorted(set(self.sites))",
        "test_doubled_sites_and_coordinator_refuse_the_attempt",
    ),
    never(
        "t11",
        "consortium/contract/certificates.py",
        "now > one.not_valid_after_utc",
        "test_a_hospital_sits_down_with_nobody_whose_certificate_is_not_good_now",
    ),
    gone(
        "t11",
        "consortium/contract/certificates.py",
        "_check_issuer(certificate, authority)",
        "test_a_hospital_sits_down_with_nobody_whose_certificate_is_not_good_now",
    ),
    never("t11", PLAN_CHECK, "outside", "test_nor_with_a_stranger_whose_certificate_is_good"),
    Mutation(
        "t11",
        "consortium/sites.py",
        "    if row.revoked:\n        return SiteRevoked",
        "    if False:\n        return AccessDenied",
        "test_a_revoked_site_is_neither_heard_nor_invited",
    ),
    Mutation(
        "t11",
        "consortium/sites.py",
        "return row.stands",
        "return True",
        "test_a_revoked_site_is_neither_heard_nor_invited",
    ),
    Mutation(
        "t11",
        PLAN_CHECK,
        "(holder.name, *",
        "(participant.site, *",
        "test_nor_with_one_hospital_under_two_names",
    ),
    Mutation(
        "t09",
        PLAN_CHECK,
        "if len(signers) < plan.threshold:",
        "if False:",
        "test_nor_for_another_one_after_it_missed_rounds_unless_enough_others_signed_it",
    ),
    # 12: too few
    never("t12", SITE, "len(sites) < attempt.context.required", "test_one_site_too_few_is_refused_in_every_phase"),
    Mutation(
        "t12",
        CONTEXT,
        "return max(self.threshold, self.minimum)",
        "return self.threshold",
        "test_one_site_too_few_is_refused_in_every_phase",
    ),
    # 13 and 14: the sum of almost the same sites
    never("t13", COHORT, "0 < difference < self.least_difference", "test_one_site_more_or_less_is_refused"),
    Mutation(
        "t13",
        COHORT,
        "0 < difference < self.least_difference",
        "0 < difference < 2",
        "test_a_stricter_site_may_ask_for_more",
    ),
    never(
        "t14",
        COHORT,
        "not self.update_is_private and any(survivors != released for released in self.released_on_model)",
        "test_another_survivor_set_on_the_same_model_is_refused",
    ),
    gone(
        "t14",
        SITE,
        "attempt.cohort.check(frozenset(event.survivors))",
        "test_another_survivor_set_on_the_same_model_is_refused",
    ),
    # 15: boxes
    Mutation("t15", CHECKS, SIGNATURE, NEVER, "test_the_hashes_of_the_other_boxes_are_signed_too"),
    never(
        "t15",
        SITE,
        "[delivery.sender for delivery in event.deliveries] != [site for site in members if site != attempt.me]",
        "test_a_box_left_out_or_doubled",
    ),
    never(
        "t15",
        SITE,
        "[recipient for recipient, _ in delivery.other_box_hashes] != others",
        "test_a_box_meant_for_another_recipient",
    ),
    never(
        "t15",
        SITE,
        "not sorted_once(members) or not set(members) <= advertised or attempt.me not in members",
        "test_members_without_this_site_or_with_strangers",
    ),
    never(
        "t15",
        CHECKS,
        "[box.recipient for box in sealed.boxes] != list(peers)",
        "test_the_coordinator_refuses_a_list_of_the_wrong_shape",
    ),
    # 16 and 17: wrong shares
    Mutation(
        "t16",
        UNMASKING,
        "accepts=accepts)",
        "accepts=lambda _: True)",
        "test_without_a_share_to_spare_the_sum_stays_masked",
    ),
    Mutation(
        "t16",
        UNMASKING,
        "    for number in recovered.wrong:\n",
        "    for number in ():\n",
        "test_the_sum_is_right_and_the_liars_are_named",
    ),
    gone("t16", CHECKS, "share_value(share.share)", "test_a_share_that_is_not_a_field_element_is_refused_on_arrival"),
    Mutation(
        "t17",
        UNMASKING,
        "return lambda b: self_mask_commitment(b.expose()) == bundle.self_mask_commitment",
        "return lambda b: True",
        "test_the_secret_cannot_be_recovered_and_the_dealer_is_named",
    ),
    Mutation(
        "t17",
        UNMASKING,
        "    for number in recovered.wrong:\n",
        "    for number in ():\n",
        "test_one_bad_share_among_enough_good_ones_does_no_harm",
    ),
    # 18: bad vectors
    never("t18", ENCODING, "values.shape != (lane.length,)", "test_the_site_sends_nothing_and_is_a_dropout"),
    never(
        "t18",
        ENCODING,
        "block.size and (int(block.max()) > largest or int(block.min()) < -largest)",
        "test_the_site_sends_nothing_and_is_a_dropout",
    ),
    never(
        "t18",
        ENCODING,
        "int(lane_sum.max()) > most or int(lane_sum.min()) < -most",
        "test_a_sum_that_the_survivors_cannot_have_made_is_applied_by_nobody",
    ),
    never("t18", ENCODING, "vector.dtype != layout.dtype", "test_the_running_sum_takes_only_its_own_ring_and_length"),
    # 19: late and second uploads
    never("t19", COORDINATOR, "previous is not None", "test_two_bodies_from_one_site_are_blamed_and_the_first_counts"),
    never(
        "t19",
        COORDINATOR,
        "accepted.masked_update_hash != message.masked_update_hash",
        "test_so_is_a_second_body_after_the_survivor_set_is_fixed",
    ),
    never("t19", COORDINATOR, "header.site not in _awaited(state)", "test_a_second_body_is_not_even_received"),
    never("t19", COORDINATOR, "not isinstance(state, Masking)", "test_a_late_upload_is_not_added"),
    # 20: the vector or the sum
    Mutation("t20", CHECKS, SIGNATURE, NEVER, "test_a_changed_hash_breaks_the_uploaders_signature"),
    never(
        "t20", SITE, "state.header not in event.headers", "test_a_site_that_is_left_out_of_the_sum_does_not_confirm_it"
    ),
    never(
        "t20",
        STUDY_WORK,
        "digest != result.next_model_digest",
        "test_a_hospital_takes_no_model_that_does_not_follow_from_the_sum",
    ),
    never(
        "t20",
        STUDY_WORK,
        "result.transcript != release.transcript",
        "test_a_hospital_takes_no_model_that_does_not_follow_from_the_sum",
    ),
    # 21: a crash
    Mutation(
        "t21",
        COORDINATOR,
        "    bundles = tuple(sorted(state.answers, key=lambda bundle: bundle.site))\n",
        "    import random\n\n    bundles = tuple(random.sample(state.answers, len(state.answers)))\n",
        "test_a_replay_from_any_line_of_the_journal_ends_in_the_same_place",
    ),
    Mutation(
        "t21",
        COORDINATOR,
        "    if site not in _awaited(state) | state.away:\n",
        "    if True:\n",
        "test_shares_lost_in_the_crash_are_asked_for_again_and_the_sum_is_opened",
    ),
    # 22: t and t - 1
    Mutation(
        "t22",
        COORDINATOR,
        "return context.threshold if isinstance(state, Confirming | Unmasking) else context.required",
        "return context.threshold - 1",
        "test_t_are_enough_and_one_fewer_is_not",
    ),
    # 23: clones
    Mutation(
        "t23",
        KEYS,
        "Secret(fresh.expose() + hedge.expose())",
        "fresh",
        "test_the_long_term_secret_tells_clones_of_the_generator_apart",
    ),
    Mutation(
        "t23",
        KEYS,
        'self_mask=hedged("self-mask")',
        'self_mask=hedged("root")',
        "test_even_a_dead_generator_gives_three_different_seeds",
    ),
    gone(
        "t23",
        SITE,
        "check_no_key_twice(attempt.context.algorithms, event.bundles)",
        "test_equal_seeds_that_get_through_are_refused_by_the_others",
    ),
    # 24: enormous numbers
    never("t24", ENCODING, "self.length > LENGTH_MAX", "test_an_enormous_layout_is_refused"),
    never(
        "t24",
        ENCODING,
        "not 1 <= len(names) <= LANES_MAX or len(set(names)) != len(names)",
        "test_many_lanes_are_refused",
    ),
    never("t24", CONTEXT, "not SITES_MIN <= n <= sites_max", "test_a_roster_of_thousands_is_refused"),
    never(
        "t24",
        "consortium/wire/fields.py",
        "not least <= len(values) <= most",
        "test_a_message_with_more_entries_than_any_round_has_sites_is_refused",
    ),
    never(
        "t24",
        "consortium/wire/fields.py",
        "not least <= value <= most",
        "test_a_header_of_an_enormous_vector_is_refused_before_its_first_chunk",
    ),
    # 25: zero weights
    never(
        "t25",
        "consortium/contract/server_optimizer.py",
        "weight <= 0",
        "test_no_model_follows_from_weights_that_sum_to_nothing",
    ),
    never("t25", VALUES, "not 0 < weight <= largest", "test_a_hospital_masks_no_update_of_weight_zero"),
    # 26: the range
    never("t26", ENCODING, "most > room", "test_the_largest_bound_is_accepted_and_one_more_is_not"),
    Mutation(
        "t26",
        ENCODING,
        "(Fraction(lane.clip) * Fraction(lane.scale) + 1)",
        "(lane.clip * lane.scale + 1)",
        "test_in_64_bits_the_comparison_is_exact_where_floats_are_not",
    ),
    # 27: any byte
    Mutation("t27", CHECKS, SIGNATURE, NEVER, "test_a_site_refuses_every_mutated_message"),
    Mutation("t27", CHECKS, SIGNATURE, NEVER, "test_the_coordinator_never_takes_a_mutated_message"),
    never("t27", CHECKS, "found != expected", "test_a_site_refuses_every_mutated_message"),
    # 28: what the training child says, and its end
    never(
        "t28",
        f"{CHILD}/frames.py",
        "head_bytes > head_max or body_bytes > body_max",
        "test_a_long_frame_takes_no_memory",
    ),
    never("t28", ANSWERS, "arrays is not None and head.arrays != arrays", "test_an_update_of_another_form_is_refused"),
    gone("t28", ANSWERS, '_require_finite(values, "the update")', "test_an_update_of_another_form_is_refused"),
    gone("t28", ANSWERS, '_require_finite(vector, "the first model")', "test_a_first_model_of_another_size_is_refused"),
    gone(
        "t28",
        ANSWERS,
        '_require_within(found["scores"], 0, 1, "a score")',
        "test_figures_of_other_patients_are_refused",
    ),
    Mutation("t28", ANSWERS, " if name in known}", "}", "test_only_known_facts_come_into_the_agents_log"),
    never(
        "t28",
        VALUES,
        "trained.noisy_steps != spec.privacy.local_steps",
        "test_other_steps_than_reserved_are_not_settled",
    ),
    never("t28", STUDY_WORK, "self._losses >= LOSSES_MAX", "test_a_study_is_prepared_anew_but_not_for_ever"),
    gone("t28", f"{CHILD}/child_process.py", "pipe.until(time.monotonic() + limit_s)", "test_one_that_hangs_is_killed"),
)

MUTATIONS = (
    *PROTOCOL_MUTATIONS,
    *PRIVACY_MUTATIONS,
    *LOG_MUTATIONS,
    *EVIDENCE_MUTATIONS,
    *RECORD_MUTATIONS,
    *STANDING_MUTATIONS,
    *STEWARD_MUTATIONS,
    *KEY_MUTATIONS,
    *ACCOUNT_MUTATIONS,
    *CONDUCT_MUTATIONS,
    *GROUP_MUTATIONS,
    *WIRE_MUTATIONS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How the test ended without the check."""

    status: int
    output: str
    failed: frozenset[str] = frozenset()  # the functions that failed, without the parameters

    @property
    def skipped(self) -> bool:
        """Whether the test found that something it needs is not installed here."""
        return self.status == PASSED and "skipped" in self.output and "passed" not in self.output

    @property
    def noticed(self) -> bool:
        """Whether the test failed, and in no other way than by failing."""
        return self.status == FAILED


class Nursery:
    """A process that runs tests in forks of itself, from this side; several at once, each for a thread that waits."""

    def __init__(self) -> None:
        settings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # threads do not survive a fork
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("mutant_nursery.py")), str(ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=settings | one_thread | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            text=True,
        )
        self._turn = threading.Lock()
        self._orders = 0
        self._waiting: dict[int, queue.SimpleQueue[int | None]] = {}
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def run(self, folder: Path, arguments: list[str], output: Path, **how: object) -> int:
        """pytest's status in a folder; TIMED_OUT if it took too long. For `how` see `mutant_nursery.py`."""
        assert self._process.stdin is not None
        answer: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        order = {"folder": str(folder), "arguments": arguments, "output": str(output), "timeout_s": TIMEOUT_S, **how}
        with self._turn:
            self._orders += 1
            self._waiting[self._orders] = answer
            self._process.stdin.write(json.dumps({"number": self._orders, **order}) + "\n")
            self._process.stdin.flush()
        status = answer.get()
        return TIMED_OUT if status is None else status

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self._waiting.pop(said["number"]).put(said["status"])
        for answer in list(self._waiting.values()):
            answer.put(DIED)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()


def threat_file(threat: str, function: str = "") -> Path:
    """The file of a threat; where there are several, the one with this function."""
    found = sorted(Path(__file__).parent.glob(f"test_{threat}_*.py"))
    (one,) = [path for path in found if len(found) == 1 or f"def {function}(" in path.read_text()]
    return one


def applied(mutation: Mutation, source: str) -> str:
    """The file without the check; raises ValueError unless its text stands there exactly once."""
    count = source.count(mutation.find)
    if count != 1:
        raise ValueError(f"{mutation.name}: its text stands {count} times in {mutation.file}")
    return source.replace(mutation.find, mutation.put)


def attempt(mutation: Mutation | None, test: str, nursery: Nursery, *, copied: bool = False) -> Verdict:
    """Run a test (`path::function`, from the root) with a check taken out of what is loaded, or of a copy of it."""
    with TemporaryDirectory(prefix="mutated-") as name:
        folder = Path(name)
        for linked in LINKED if copied else (*LINKED, *PACKAGES):
            (folder / linked).symlink_to(ROOT / linked)
        for package in PACKAGES if copied else ():
            shutil.copytree(ROOT / package, folder / package)
        file, text = "", ""
        if mutation is not None:
            text = applied(mutation, (ROOT / mutation.file).read_text())
            if copied:
                (folder / mutation.file).write_text(text)
            else:
                file = mutation.file
        # Failures are read from the summary's lines, one each; how much is said of them depends on the environment.
        arguments = ["-x", "-q", "--tb=line", "-rf", *(part for plugin in PLUGINS for part in ("-p", plugin)), test]
        # A folder of its own: the one pytest shares among runs is searched and cleared by all of them at once.
        arguments.append(f"--basetemp={folder / 'tmp'}")
        output = folder / "output"
        status = nursery.run(folder, arguments, output, copied=copied, file=file, text=text)
        said = output.read_text()
    failed = frozenset(re.findall(r"^FAILED \S+?::(\w+)", said, flags=re.MULTILINE))
    return Verdict(status=status, output=said[-2000:], failed=failed)


@contextmanager
def nursery() -> Iterator[Nursery]:
    """It takes seconds to start."""
    made = Nursery()
    try:
        yield made
    finally:
        made.close()


def try_all(mutations: tuple[Mutation, ...], nursery: Nursery) -> Iterator[tuple[Mutation, Verdict]]:
    """Every mutation against its test, a few at once; in order."""

    def one(mutation: Mutation) -> Verdict:
        file = threat_file(mutation.threat, mutation.test).relative_to(ROOT)
        try:
            test = f"{file}::{mutation.test}"
            if mutation.threat not in OWN_PROCESSES and (verdict := attempt(mutation, test, nursery)).noticed:
                return verdict
            return attempt(mutation, test, nursery, copied=True)
        except ValueError as error:
            return Verdict(status=NOT_APPLIED, output=str(error))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from zip(mutations, pool.map(one, mutations), strict=True)


def main(threats: list[str]) -> int:
    """Try, print, and exit 1 if a test did not notice."""
    chosen = tuple(m for m in MUTATIONS if not threats or m.threat in threats)
    missed = 0
    with nursery() as made:
        for mutation, verdict in try_all(chosen, made):
            noticed = verdict.skipped or (verdict.noticed and verdict.failed == {mutation.test})
            word = "skipped " if verdict.skipped else "noticed " if noticed else f"NOT noticed ({verdict.status})"
            print(word, mutation.name, mutation.test, flush=True)
            if not noticed:
                missed += 1
                print(verdict.output)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
