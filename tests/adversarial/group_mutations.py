"""Mutations (see `mutations.py`) of what keeps groups from being chosen: g01 to g06, protocol section 10."""

from tests.adversarial.mutation import Mutation, gone, never

BEACON, GROUPED, CONTEXT = (f"privacy/secagg/{name}.py" for name in ("beacon", "grouped_site", "context"))

GROUP_MUTATIONS = (
    never(
        "g01",
        BEACON,
        "len(reveal.nonce) != NONCE_BYTES or commitment_of(digest, reveal.site, reveal.nonce) != commitment",
        "test_a_site_that_reveals_another_nonce_is_blamed_and_the_others_go_on",
    ),
    never(
        "g01",
        BEACON,
        "len(nonce) != NONCE_BYTES or commitment_of(digest, site, nonce) != committed[site]",
        "test_a_coordinator_that_relays_another_nonce_of_a_site_is_refused",
    ),
    never(
        "g01",
        BEACON,
        "(own.site, own.nonce) not in listed.nonces",
        "test_a_coordinator_that_replaces_or_leaves_out_this_site_s_nonce_is_refused",
    ),
    Mutation(
        "g01",
        BEACON,
        '_hash("beacon commitment", context, site.encode(), nonce)',
        '_hash("beacon commitment", context, nonce)',
        "test_a_commitment_cannot_be_copied_to_reveal_the_same_nonce",
    ),
    Mutation(
        "g02",
        BEACON,
        '_hash("beacon", context, commitments_hash, *',
        '_hash("beacon", context, *',
        "test_sites_that_were_shown_different_lists_refuse_each_other_s_keys",
    ),
    Mutation(
        "g02",
        CONTEXT,
        "[place.whole.hex(), place.beacon.hex(), place.number, place.count]",
        "[place.whole.hex(), place.number, place.count]",
        "test_sites_that_were_shown_different_lists_refuse_each_other_s_keys",
    ),
    never(
        "g02",
        BEACON,
        "reveal.commitments_hash != listed",
        "test_a_site_that_was_shown_another_list_reveals_nothing_the_coordinator_can_use",
    ),
    never(
        "g02",
        BEACON,
        "(own.site, own.commitment) not in listed.commitments",
        "test_a_list_without_this_site_s_commitment_or_with_another_one",
    ),
    never(
        "g02",
        BEACON,
        "len(sites) < context.required",
        "test_a_list_so_short_that_colluding_sites_could_fill_the_groups",
    ),
    never(
        "g03",
        BEACON,
        "len(sites) < needed_reveals(context, len(committed))",
        "test_more_than_two_nonces_missing",
    ),
    never(
        "g03",
        BEACON,
        "not sorted_once(sites) or not set(sites) <= committed.keys()",
        "test_nonces_that_nobody_committed_to",
    ),
    never(
        "g04",
        CONTEXT,
        "bool(self.group_size) != (self.group is not None)",
        "test_the_whole_attempt_as_one_graph",
    ),
    never("g04", CONTEXT, "not size <= n < 2 * size", "test_groups_smaller_or_larger_than_the_plan_says"),
    gone(
        "g04",
        GROUPED,
        "check_context(event.context, state.attempt.digest, source=COORDINATOR, phase=phase[type(event)])",
        "test_messages_addressed_to_one_group_only",
    ),
    gone(
        "g04",
        CONTEXT,
        'record["group_size"] = self.group_size',
        "test_another_size_of_groups_is_another_attempt",
    ),
    Mutation(
        "g05",
        BEACON,
        '_hash("beacon commitment", context, site.encode(), nonce)',
        '_hash("beacon commitment", site.encode(), nonce)',
        "test_a_nonce_that_fits_its_old_commitment_fits_no_commitment_of_this_attempt",
    ),
    never("g05", "privacy/secagg/checks.py", "found != expected", "test_lists_of_the_old_attempt"),
    gone(
        "g06", GROUPED, "check_confirmed_groups(state.groups, attempt.digest, event)", "test_a_group_without_its_quorum"
    ),
    never(
        "g06",
        GROUPED,
        "(own.survivors, own.transcript) != (inner.survivors, inner.transcript)",
        "test_another_sum_for_this_site_s_own_group",
    ),
)
