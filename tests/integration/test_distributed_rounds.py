"""Distributed DP-SGD from end to end: one real hospital, its ledger and its log, and whole rounds of a real machine.

The other hospitals are puppets whose update is zeros, so every sum is the hospital's own noisy vector and nothing else:
what arrives can be compared with what the design says one share of the noise is.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from opacus.accountants import RDPAccountant

from audit import entries
from consortium.contract.layout import round_layout
from consortium.contract.messages import StudyEnded
from consortium.contract.plan import RoundKind
from consortium.contract.server_optimizer import state_layout
from consortium.contract.shared_noise import shared_noise
from consortium.contract.study import StudyFile
from privacy.dp import accountant
from privacy.dp.randomness import CryptographicGenerator
from privacy.encoding import decode, encode
from privacy.secagg.masks import RunningSum
from privacy.secret import Secret
from site_agent.gradients.engine import PatientSum
from site_agent.shared_step import SharedStep
from site_agent.training_spec import spec_of
from tests.fakes.scripted_site import serving, update_of
from tests.fakes.site_world import endorsement, hospital, keys, small_study
from tests.fakes.small_study import DOCUMENT
from tests.fakes.training import entropy_of

ROUNDS = 3
POLICY = {"allowed_mechanisms": ["distributed-dp-sgd"]}


def distributed_study(*, colluding: int = 0, **privacy: object) -> StudyFile:
    return small_study(
        training={
            "rounds": ROUNDS,
            "spare_rounds": 1,
            "sampling_rate": 0.25,
            "optimizer": {"name": "adam", "learning_rate": 0.05},
            "averaging": {"decay": 0.5},
        },
        privacy={"mechanism": "distributed-dp-sgd", "colluding": colluding} | privacy,
        aggregation={"update_clip": 64.0},
        evaluation={"every_rounds": ROUNDS},
    )


async def test_a_whole_study_with_a_dropout_is_charged_for_the_sum_and_ends_on_the_average(tmp_path):
    study = distributed_study()
    mechanism = shared_noise(study).mechanism
    assert mechanism.shares == 3
    async with hospital(tmp_path, study, **POLICY) as world:
        state = state_layout(study, world.model.parameters)
        for number in range(1, ROUNDS + 1):
            outcome = await world.attempt(drops=("cedar",) if number == 2 else ())
            assert outcome.closed
            assert len(outcome.state.survivors) == (3 if number == 2 else 4)
            steps = outcome.sums["update"] / mechanism.grid_spacing
            assert (steps == np.rint(steps)).all()
            assert np.abs(steps).min() > 0  # a coordinate without noise would be a clean sum
            # The hospital computed the same next model, state and all, and says so.
            assert outcome.said[-1].next_model_digest == world.model.digest()
            assert world.model.state == (state if number < ROUNDS else ())

        (row,) = world.ledger.report()
        planned = spec_of(study, declared_patients=1).privacy.study_event()
        assert row.steps == ROUNDS
        assert row.epsilon == accountant.epsilon([planned.with_steps(ROUNDS)], delta=study.privacy.delta)
        assert row.epsilon < study.privacy.epsilon  # a spare round is left
        (configured,) = world.line.logged(entries.DpConfigured)
        assert (configured.mechanism, configured.event.shares) == ("poisson-sampled-discrete-gaussian", 3)
        spent = world.line.logged(entries.DpSpent)
        assert {(s.event.KIND, s.event.shares, s.event.noise_multiplier) for s in spent} == {
            ("poisson-sampled-discrete-gaussian", 3, mechanism.noise_multiplier)
        }
        # By itself a hospital's vector promises less: one share of the noise.
        alone = mechanism.with_shares(1)
        assert alone.share_std == pytest.approx(mechanism.share_std)
        assert alone.noise_std < mechanism.noise_std


async def test_a_hospital_that_missed_a_round_gets_the_optimizers_state_with_the_model(tmp_path):
    async with hospital(tmp_path, distributed_study(), **POLICY) as world:
        missed = await world.attempt(result=False)
        world.go_on(missed)
        world.work.session_ended()
        signed = tuple(
            endorsement(keys().members[name], missed.plan, world.model.digest())
            for name in ("alder", "cedar", "dogwood")
        )
        outcome = await world.attempt(endorsements=signed)
        assert outcome.said[-1].next_model_digest == world.model.digest()
        assert world.model.state


async def test_one_noisy_vector_is_kept_until_its_upload_and_then_another_is_drawn_and_charged(tmp_path):
    async with hospital(tmp_path, distributed_study(), **POLICY) as world:
        values, plan, policy = world.work._values, world.plan(), world.home.config.policy
        first = await values.contribution(plan, world.model, policy)
        again = await values.contribution(plan, world.model, policy)
        assert np.shares_memory(first.lanes["update"], again.lanes["update"])
        assert first.lanes["update"].dtype == np.float64
        assert [row.rounds for row in world.ledger.report()] == [1]
        values.uploading()
        fresh = await values.contribution(world.plan(attempt=2), world.model, policy)
        assert (fresh.lanes["update"] != first.lanes["update"]).all()
        assert [row.rounds for row in world.ledger.report()] == [2]
        # Every value is a whole step of the lane: encoding carries it as it is, whatever the dither.
        zeros = {name: np.zeros(len(value)) for name, value in first.lanes.items()}
        for dither in (b"a" * 32, b"b" * 32):
            encoded = encode(zeros | {"update": first.lanes["update"]}, plan.layout, Secret(dither))
            assert (decode(encoded, plan.layout)["update"] == first.lanes["update"]).all()


async def test_the_coordinator_carries_the_optimizers_state_from_round_to_round_over_the_wire(tmp_path):
    record = json.loads(json.dumps(DOCUMENT))
    record["training"] |= {"rounds": ROUNDS, "optimizer": {"name": "sgd", "learning_rate": 0.5, "momentum": 0.5}}
    record["privacy"]["mechanism"] = "distributed-dp-sgd"
    record["aggregation"]["update_clip"] = 64.0
    study = StudyFile.model_validate_json(json.dumps(record))
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "completed")
        # Every site of the script computes the next model itself, and would not go on with another.
        await world.until(lambda: all(site.told(StudyEnded) for site in sites.values()))
        gradient = np.sum([update_of(name) for name in sites], axis=0) / (0.5 * 10 * len(sites))
        velocity, weights = np.zeros(3), np.zeros(3)
        for _ in range(ROUNDS):
            velocity = 0.5 * velocity + gradient
            weights -= 0.5 * velocity
        assert world.model(study) == pytest.approx(weights.tolist(), abs=1e-4)
        models = world.home.rooms.models
        closed = [entry["body"] for entry in world.home.log() if entry["type"] == "round.closed"]
        carried = [len(models.load(body["next_model_digest"]).state) for body in closed]
        assert carried == [2] * (ROUNDS - 1) + [0, 0]  # after the last round, and the evaluation, only parameters


def test_the_sum_of_shares_has_the_noise_of_its_survivors():
    """Variance of the decoded sum of n hospitals without patients: n shares, each sigma^2 / h. d = 6000, 5 sigma."""
    study = distributed_study(colluding=1)
    base = shared_noise(study)
    count = 6000
    mechanism = replace(base.mechanism, dimension=count)
    assert mechanism.shares == 2
    nobody = PatientSum(total=np.zeros(count), patients=0, clipped=0, broken=0)
    layout = round_layout(study, parameters=(("w", (count,)),), kind=RoundKind.TRAIN, measured=False)
    for survivors in (4, 3):
        total = RunningSum(layout)
        for site in range(survivors):
            counts = RDPAccountant()
            step = SharedStep(
                mechanism, base.sum_bound, CryptographicGenerator(entropy_of(f"{survivors} {site}")), counts
            )
            vector = step.noisy_sum(nobody)
            assert counts.history == [(mechanism.noise_multiplier, 0.25, 1)]
            total.add(encode({"update": vector, "weight": np.ones(1)}, layout, Secret(bytes([site]) * 32)))
        decoded = decode(total.result, layout, survivors=survivors)["update"]
        expected = survivors / mechanism.shares * mechanism.noise_std**2
        assert abs(decoded.var() / expected - 1) < 5 * np.sqrt(2 / count)
        assert expected >= mechanism.noise_std**2
