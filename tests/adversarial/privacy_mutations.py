"""The checks that keep a patient's privacy (d01 to d30), and those that keep its figures honest (a13, a15, s17).

Beside them stand those of what a hospital runs and begins from (s20, i03, b01), of its images (i01, i02), of how a
study ends (s21), and of who has seen the log (a16).

What stands here is as in `mutations.py`: a text that stands exactly once in its file, what is put in its place, and
the test that has to fail.
"""

from tests.adversarial.mutation import Mutation, gone, never

TRAINER, TRAINING_SPEC, SPLITS = (f"site_agent/{name}.py" for name in ("trainer", "training_spec", "splits"))
LEDGER, CAPS, TOLD, MARKS = (f"site_agent/{name}.py" for name in ("ledger", "ledger_caps", "told", "patient_marks"))
SPENDS, PREPARATION, VALUES, TALLY = (
    f"site_agent/{name}.py" for name in ("spend_entries", "preparation", "round_values", "tally")
)
CLOSED_FORM, BOOKKEEPING = "site_agent/gradients/closed_form.py", "site_agent/gradients/bookkeeping.py"
MECHANISM, VERIFY = "privacy/dp/mechanism.py", "audit/verify.py"
SHARED_NOISE = "consortium/contract/shared_noise.py"
FIGURES = "site_agent/private_figures.py"
OPACUS = "site_agent/gradients/opacus_engines.py"
CLIENT_ALGO, INITIAL = "site_agent/client_algo_file.py", "site_agent/networks/initial.py"
STUDY_WORK = "site_agent/study_work.py"
WEIGHTED = "self._add_weighted(losses, factors_of(squares, clip_norm_l2, tally), tally.total)"
AGAIN = "losses = self.loss(self._hooked(features.requires_grad_()), labels)"
REDRAWN = f"self._hooked.disable_hooks()\n                {AGAIN}\n                {WEIGHTED}"
SIGN_FIGURES = "sign_figures(self._ledger, self._events, self._study, self._digest, self._dataset)"
NOISE = "noisy(clean, self._mechanism.noise_std, self.grid, self._random)"
BOUNDS = 'if not lower - 1e-6 <= body["epsilon"] <= upper + 1e-6:\n            where = f"leaf {leaf} (dp.spent'
EXPRESSIONS = "site_agent/bundles/expressions.py"
IMAGE_SAFETY, IMAGE_LOADER = "site_agent/imaging/safety.py", "site_agent/imaging/loader.py"

PRIVACY_MUTATIONS = (
    # 1: noise
    Mutation("d01", TRAINER, NOISE, NOISE.replace("noise_std", "noise_std * 0.95"), "test_the_noise_is_as_promised"),
    Mutation(
        "d01",
        MECHANISM,
        "out = generator.gaussian(total.size, std / grid.spacing)",
        "out = np.zeros(total.size)",
        "test_no_coordinate_is_left_without_noise",
    ),
    # 2: constants of the study
    Mutation(
        "d02",
        TRAINER,
        "while len(steps) < self._spec.privacy.local_steps:",
        "while len(steps) < len(self._records_of_patient) - 95:",
        "test_events_are_the_same_for_96_and_97_patients",
    ),
    Mutation(
        "d02",
        TRAINER,
        "denominator=privacy.denominator,",
        "denominator=max(1.0, privacy.mechanism.sampling_rate * len(self._records_of_patient)),",
        "test_steps_and_divisor_do_not_depend_on_the_cohort",
    ),
    Mutation(
        "d02",
        CLOSED_FORM,
        "clip_norm_l2 / np.maximum(norms, clip_norm_l2), 0.0)",
        "1.0, 0.0)",
        "test_one_patient_moves_an_update_by_at_most_a_clip_norm_a_step",
    ),
    # 3: a broken record
    never("d03", CLOSED_FORM, "(factors == 0).any()", "test_its_patient_is_a_zero_and_everybody_else_counts_as_before"),
    never("d03", BOOKKEEPING, "broken.any()", "test_a_broken_record_leaves_the_update_finite_and_costs_the_same"),
    # 4: an empty batch
    Mutation(
        "d04",
        TRAINER,
        NOISE,
        NOISE.replace("noise_std", "noise_std * bool(self.last.sampled)"),
        "test_empty_steps_are_as_noisy_as_others",
    ),
    Mutation(
        "d04",
        TRAINER,
        "for patient in np.flatnonzero(coins)]",
        "for patient in np.flatnonzero(coins)] or [self._records_of_patient[0]]",
        "test_nothing_of_a_patient_is_in_an_empty_step",
    ),
    # 5: noise from a generator that a study seeds
    Mutation(
        "d05",
        TRAINER,
        "CryptographicGenerator(entropy)",
        "CryptographicGenerator(np.random.bytes)",
        "test_two_sites_with_one_seed_have_the_same_model_and_unrelated_noise",
    ),
    # 6: one accountant, every step
    Mutation(
        "d06",
        TRAINER,
        "        before = self._steps_seen()\n",
        "        self._accountant.history.clear()\n        before = self._steps_seen()\n",
        "test_one_opacus_accountant_has_seen_every_step",
    ),
    Mutation(
        "d06",
        TRAINER,
        "        if (self.noise_multiplier, self.max_grad_norm) != (\n",
        "        if not self and (self.noise_multiplier, self.max_grad_norm) != (\n",
        "test_noise_changed_behind_the_plan_is_noticed",
    ),
    never("d06", TRAINER, "executed != planned.local_steps", "test_a_step_too_few_or_too_many_is_noticed"),
    # 7: a ledger that forgets
    Mutation(
        "d07",
        LEDGER,
        "'reserved', ?)",
        "'released', ?)",
        "test_dying_in_every_round_spends_every_round",
    ),
    Mutation(
        "d07",
        CAPS,
        "elif (total := _total(after, limits)) > limits.total_epsilon:",
        "elif (total := 0.0):",
        "test_a_second_study_finds_what_the_first_one_left",
    ),
    # 8: records for patients
    Mutation(
        "d08",
        TRAINER,
        "rows_of_patients(train.patients)",
        "rows_of_patients(np.arange(len(train.patients)))",
        "test_a_patient_with_eight_loud_records_moves_the_sum_by_one_clip_norm",
    ),
    Mutation(
        "d08",
        TRAINER,
        "coins = self._generator.bernoulli(",
        "coins = np.arange(10) if self else self._generator.bernoulli(",
        "test_the_number_of_sampled_patients_is_binomial",
    ),
    # 9: half a sum
    never(
        "d09",
        TRAINER,
        "self._taken is not None or self._sum is not None",
        "test_a_sum_that_was_left_without_its_step_stops_the_next",
    ),
    Mutation(
        "d09",
        TRAINER,
        "clean, self._taken = self._taken, None\n",
        "clean = self._taken\n",
        "test_the_sum_of_one_step_is_not_used_by_two",
    ),
    # 10: a share of noise in two sums
    never(
        "d10",
        VALUES,
        "self._prepared.study.is_distributed or not self._prepared.study.is_private",
        "test_a_vector_that_was_uploaded_is_never_in_another_sum",
    ),
    # 11: shares that are not there, and what rounding moves
    Mutation(
        "d11",
        SHARED_NOISE,
        "shares=study.honest_shares,",
        "shares=len(study.sites.required),",
        "test_a_sum_of_the_fewest_hospitals_without_the_colluding_ones_has_all_the_noise",
    ),
    Mutation(
        "d11",
        SHARED_NOISE,
        "steps=training.rounds + training.spare_rounds,",
        "steps=training.rounds,",
        "test_every_round_and_every_spare_one_is_paid_for",
    ),
    Mutation(
        "d11",
        MECHANISM,
        "(1 - margin) - spacing * math.sqrt(dimension)",
        "(1 - margin)",
        "test_rounding_to_the_grid_moves_nobody_beyond_the_clip_norm",
    ),
    never("d11", SHARED_NOISE, "room < privacy.clip_norm_l2", "test_a_lane_too_narrow_for_the_noise_is_refused"),
    # 20: a ledger from a backup
    never("d20", TOLD, "found < one.steps", "test_an_older_ledger_is_refused_everywhere_and_nothing_is_trained"),
    never(
        "d20", "site_agent/agent.py", "self._in_log > remembered", "test_both_files_restored_are_found_out_by_the_log"
    ),
    # 21: the same patients again
    gone(
        "d21",
        PREPARATION,
        "ledger.register(name, marks_of(room.identifiers(), home.long_term_secret))",
        "test_the_same_file_under_another_name_has_nothing_left",
    ),
    never("d21", MARKS, "common", "test_one_patient_in_common_is_enough"),
    # 22: more than was planned
    never(
        "d22",
        CAPS,
        "limits.study_steps is not None and steps > limits.study_steps",
        "test_not_a_step_more_than_the_noise_was_calibrated_for",
    ),
    never(
        "d22",
        CAPS,
        "not self._fits(wanted, delta=limits.study_delta, cap=limits.study_epsilon)",
        "test_epsilon_above_the_studys_own",
    ),
    never(
        "d22",
        CAPS,
        "not self._fits(wanted, delta=limits.total_delta, cap=limits.total_epsilon)",
        "test_epsilon_above_the_datasets_cap_at_admission_and_in_a_round",
    ),
    never(
        "d22",
        LEDGER,
        "executed is not None and not _covers(recorded, executed)",
        "test_steps_beyond_the_reservation_are_counted_and_refused",
    ),
    # 23: less noise after the approval
    Mutation(
        "d23",
        PREPARATION,
        "    decision = store.decision(digest)\n",
        "    (decision,) = store.decisions()\n    digest = decision.study_digest\n",
        "test_whatever_moves_sigma_is_another_study_that_nobody_approved",
    ),
    Mutation(
        "d23",
        TRAINING_SPEC,
        "steps=study.steps_of_a_site,",
        "steps=training.rounds,",
        "test_sigma_follows_from_what_was_approved_and_nothing_else",
    ),
    # 25: a patient on both sides
    never("d25", SPLITS, "both.any()", "test_a_split_of_the_hospitals_own_may_not_divide_a_patient"),
    Mutation(
        "d25",
        SPLITS,
        "    rows = chosen[patients]\n",
        "    rows = np.resize(chosen, len(patients))\n",
        "test_all_records_of_a_patient_are_on_one_side",
    ),
    # 26: an accountant for two
    Mutation(
        "d26",
        TRAINER,
        "self._accountant = RDPAccountant()",
        'self._accountant = globals().setdefault("_SHARED", RDPAccountant())',
        "test_every_trainer_counts_for_itself",
    ),
    never(
        "d26",
        TRAINER,
        "executed != planned.local_steps",
        "test_a_second_optimizer_on_a_living_accountant_stops_the_training",
    ),
    # 27: death between two writes
    Mutation(
        "d27",
        VALUES,
        "        reservation = self._ledger.reserve(",
        "        prepared.room.train(job, self._followed(plan))\n        reservation = self._ledger.reserve(",
        "test_killed_before_every_statement_of_an_attempt",
    ),
    gone(
        "d27",
        "site_agent/store.py",
        "told.remember(connection, spent)",
        "test_killed_before_every_statement_of_an_attempt",
    ),
    Mutation(
        "d27",
        SPENDS,
        "for spend in unsigned:",
        "for spend in unsigned[-1:]:",
        "test_killed_before_every_statement_of_an_attempt",
    ),
    # What the log's reader adds up again, and what certificates may say
    never("a13", VERIFY, 'event != {**planned, "steps": event["steps"]}', "test_spent_is_not_what_was_configured"),
    never("a13", VERIFY, 'event["shares"] > honest', "test_more_shares_than_the_study_counts_on"),
    Mutation(
        "a13", VERIFY, BOUNDS, BOUNDS.replace("not lower", "False and lower"), "test_one_rounds_epsilon_instead_of_all"
    ),
    gone(
        "a15",
        VERIFY,
        "_check_dataset(case, leaf, name, body)",
        "test_another_study_on_the_same_dataset_cannot_be_left_out",
    ),
    never(
        "a15",
        VERIFY,
        'not steps <= event["steps"] <= plan["steps_planned"]',
        "test_steps_after_the_certificate_count_too",
    ),
    Mutation("a13", VERIFY, "    parts += _check_figures(case)\n", "", "test_above_what_the_study_allows_them"),
    Mutation("a13", VERIFY, ' or body["steps_total"] > planned:', ":", "test_more_draws_than_the_study_plans"),
    never(
        "a13",
        VERIFY,
        'event["shares"] != 1 or event["sampling_rate"] != 1',
        "test_draws_that_are_something_else",
    ),
    never("a13", VERIFY, 'event["clip_norm_l2"] < least * (1 - 1e-12)', "test_draws_that_are_something_else"),
    # Test figures with a budget of their own
    gone("d20", FIGURES, SIGN_FIGURES, "test_a_ledger_that_lacks_test_figures_alone_is_refused_too"),
    gone("d28", FIGURES, SIGN_FIGURES, "test_killed_before_every_statement_of_a_draw"),
    never("d28", FIGURES, "not reservation.fresh", "test_killed_before_every_statement_of_a_draw"),
    Mutation(
        "d12",
        MECHANISM,
        "noise = discrete_gaussian(generator, mechanism.dimension, mechanism.share_std / mechanism.grid_spacing)",
        "noise = np.rint(np.random.normal(0, 2.0**20, mechanism.dimension)).astype(np.int64)",
        "test_no_generator_of_the_process_is_read",
    ),
    # Random layers
    Mutation("d29", OPACUS, WEIGHTED, REDRAWN, "test_nobody_moves_more_than_the_clip_norm_whatever_is_dropped"),
    Mutation(
        "d29",
        "site_agent/gradients/self_test.py",
        "not norm <= one.patients * clip * (1 + FLOAT_MARGIN)",
        "False",
        "test_such_an_engine_is_refused_before_it_trains",
    ),
    # Views of records
    Mutation(
        "d30",
        "site_agent/views.py",
        "step, drawn, self._contents[row]]",
        "step, drawn, row]",
        "test_everybody_else_is_seen_as_before",
    ),
    # Exact sums
    Mutation(
        "s18",
        STUDY_WORK,
        "return not self._prepared.study.is_private or any(",
        "return any(",
        "test_a_round_over_all_but_one_of_the_last_survivors_is_not_confirmed",
    ),
    # Turns
    Mutation(
        "s23",
        "site_agent/plan_check.py",
        "    _check_schedule(plan, study)\n",
        "",
        "test_nobody_is_invited_out_of_turn",
    ),
    never(
        "s23",
        "consortium/contract/layout.py",
        "study.training.participants_per_round is not None",
        "test_no_round_of_training_is_measured",
    ),
    Mutation(
        "s23",
        "site_agent/plan_check.py",
        "**_keys_shown(invitation.endorser_certificates, authority, now)",
        "",
        "test_an_endorser_that_is_not_in_the_plan_counts_by_its_certificate",
    ),
    Mutation(
        "s23",
        "site_agent/plan_check.py",
        "for site, key in known.items() if site in expected.study.sites.required",
        "for site, key in known.items()",
        "test_an_endorser_that_is_not_in_the_plan_counts_by_its_certificate",
    ),
    never("s23", VERIFY, "not found <= set(allowed)", "test_a_round_out_of_schedule_does_not_verify"),
    never("s23", VERIFY, 'record["type"] == "model.evaluated"', "test_a_round_out_of_schedule_does_not_verify"),
    # Groups of few
    Mutation(
        "s17",
        TALLY,
        "len(part) >= wanted.smallest_cell",
        "len(part) >= 1",
        "test_a_small_group_is_in_no_sum_over_groups",
    ),
    Mutation(
        "s17",
        TALLY,
        "np.random.default_rng(_COVER_SEED)",
        "np.random.default_rng()",
        "test_two_rounds_differ_by_nobody",
    ),
    Mutation(
        "s17",
        TALLY,
        "[:minimum_cell]] = True",
        "[:0]] = True",
        "test_everybody_minus_the_groups_is_enough_patients_of_every_hospital",
    ),
    # What a hospital runs and begins from
    Mutation(
        "s20",
        CLIENT_ALGO,
        "        return NOT_REGISTERED\n",
        "        return None\n",
        "test_a_name_that_this_hospital_has_not_registered",
    ),
    never("s20", CLIENT_ALGO, "found != registered.sha256", "test_a_file_that_was_changed_after_it_was_registered"),
    never("i03", INITIAL, "found != sha256", "test_a_good_file_with_another_digest_is_another_file"),
    never("i03", INITIAL, "status.st_size > bytes_max", "test_sizes_and_kinds_are_known_before_anything_is_read"),
    never("i03", INITIAL, "not stat.S_ISREG(status.st_mode)", "test_sizes_and_kinds_are_known_before_anything_is_read"),
    never("i03", INITIAL, "model.state", "test_a_hostile_file_changes_nothing"),
    never("i03", INITIAL, "extra", "test_drawing_what_is_missing_allows_nothing_else"),
    never("i03", INITIAL, "shape != wanted[name]", "test_drawing_what_is_missing_allows_nothing_else"),
    never("i03", INITIAL, "missing and not draw_missing", "test_a_hostile_file_changes_nothing"),
    # How a study ends
    never(
        "s21",
        "site_agent/plan_check.py",
        "expected.chain is not None and expected.chain.ended",
        "test_no_round_is_answered_after_the_stop",
    ),
    never(
        "s21",
        "site_agent/plan_check.py",
        "plan.round > 1 and has_ended(study, model)",
        "test_a_hospital_that_missed_the_stop_sees_it_in_the_model",
    ),
    gone(
        "s21",
        "site_agent/plan_check.py",
        '_same("kind", plan.kind.value, kind_of(study, plan.round, model).value)',
        "test_the_chosen_model_is_measured_once_on_the_test_patients_and_never_trained",
    ),
    Mutation(
        "s21",
        "site_agent/cohort.py",
        "if chosen or self.validation is None",
        "if self.validation is None",
        "test_the_chosen_model_is_measured_once_on_the_test_patients_and_never_trained",
    ),
    Mutation(
        "s21",
        VERIFY,
        "figure = None if made else figures.get(key)",
        "figure = figures.get(key)",
        "test_a_model_chosen_by_validation_patients_is_tested_once_on_others",
    ),
    Mutation(
        "s21",
        STUDY_WORK,
        "verified = verified and chain is not None and chain.ended",
        "verified = verified and chain is not None",
        "test_an_end_that_came_too_soon_is_not_verified",
    ),
    Mutation(
        "s21",
        VERIFY,
        '    ("choice of the model", step_choice),\n',
        "",
        "test_a_choice_in_a_study_that_makes_none_does_not_verify",
    ),
    # Who has seen the log
    never(
        "a16",
        VERIFY,
        'quorum != "none" and not case.policy.is_met(quorum, cosigned)',
        "test_too_few_witnesses",
    ),
    never(
        "a16",
        VERIFY,
        "not 0 < time_s < 2**63 or not signature_holds(key.public, payload[12:], message)",
        "test_cosignatures_of_another_history",
    ),
    # b01: bundles
    gone(
        "b01",
        "site_agent/bundles/checking.py",
        'self._refuse(inside, shown(value), "a target on the allow-list, written out as its name", _ADVICE_TARGET)',
        "test_a_configuration_that_is_more_than_data",
    ),
    never("b01", EXPRESSIONS, "len(text) > LENGTH_MAX", "test_a_configuration_that_is_more_than_data"),
    # i01: files that do not fit
    Mutation(
        "i01",
        IMAGE_SAFETY,
        "    except Exception:  # noqa: BLE001 - a library may raise anything at all\n",
        "    except KeyError:\n",
        "test_each_bad_volume_is_left_out_for_its_reason",
    ),
    never(
        "i01",
        IMAGE_LOADER,
        "not (low <= float(image.values.min()) and float(image.values.max()) <= high)",
        "test_each_bad_volume_is_left_out_for_its_reason",
    ),
    never(
        "i01",
        IMAGE_LOADER,
        "not (allowed[found] == mask.values[0]).all()",
        "test_each_bad_volume_is_left_out_for_its_reason",
    ),
    # i02: what libraries say
    Mutation(
        "i02",
        IMAGE_SAFETY,
        '    with warnings.catch_warnings():\n        warnings.simplefilter("ignore")\n        yield\n',
        "    yield\n",
        "test_dicom_headers_stay_where_they_are",
    ),
)
