"""A study goes on, and its model is released, only on a log that enough hospitals have cosigned, over the real wire."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.cosignature import WitnessSigner
from consortium import driver, quorum
from consortium.errors import NotWitnessed
from consortium.training_round import Phase
from tests.fakes.scripted_site import serving
from tests.fakes.small_study import SITES, small_study

NEEDED = 3


def signer(world, site):
    key = Ed25519PrivateKey.from_private_bytes(bytes([1 + SITES.index(site)]) * 32)
    return WitnessSigner(f"{world.home.coordinator.home.config.log_origin}/witness/{site}", key)


async def test_rounds_wait_for_witnesses_and_so_does_the_release(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "WITNESSED_WITHIN_S", 0.0)
    study = small_study()
    async with serving(tmp_path) as world:
        sites = world.enrol(study)
        for name in SITES[: NEEDED - 1]:
            sites[name].witness = signer(world, name)
        world.join(*SITES)
        await world.command("study.start", study=study.id)

        def phase():
            found = world.home.coordinator.drivers.get(study.id)
            return found.progress.phase if found is not None else ""

        await world.until(lambda: phase() == "waiting for witnesses of the log")
        assert world.history(study) == []
        late = sites[SITES[NEEDED - 1]]
        late.witness = signer(world, late.name)
        late.session.close()  # it comes back, as a witness
        await world.until(lambda: world.state(study) == "completed")
        await world.command("study.release", study=study.id)


async def test_hospitals_that_were_away_for_long_cosign_before_the_next_invitation(tmp_path, monkeypatch):
    """The others would decline: they have seen entries that too few cosigned, for as long as these were away."""
    monkeypatch.setattr(driver, "WITNESSED_WITHIN_S", 1e9)  # nothing is owed yet
    study, away = small_study(), SITES[NEEDED - 1 :]
    async with serving(tmp_path) as world:
        sites = world.enrol(study)
        for name in SITES:
            sites[name].witness = signer(world, name)
        for name in away:
            sites[name].script[2, 1], sites[name].stays_away = Phase.INVITING, True
        world.join(*SITES)
        await world.command("study.start", study=study.id)

        def phase():
            return world.home.coordinator.drivers[study.id].progress.phase

        await world.until(lambda: len(world.history(study)) == 1 and phase() == "waiting for hospitals")
        monkeypatch.setattr(driver, "WITNESSED_WITHIN_S", 0.0)
        for name in away:
            sites[name].witness = None
            sites[name].come_back()
        await world.until(lambda: phase() == "waiting for witnesses of the log")
        assert [one.plan.attempt for one in sites.values()] == [1] * len(SITES)
        for name in away:
            sites[name].witness = signer(world, name)
            sites[name].session.close()  # it comes back, as a witness
        await world.until(lambda: world.state(study) == "completed", timeout_s=30)


@pytest.mark.parametrize("witnesses", [0, NEEDED - 1])
async def test_a_model_is_not_released_unwitnessed(tmp_path, monkeypatch, witnesses):
    monkeypatch.setattr(quorum, "WAIT_S", 0.3)
    study = small_study()
    async with serving(tmp_path) as world:
        sites = world.enrol(study)
        for name in SITES[:witnesses]:
            sites[name].witness = signer(world, name)
        world.join(*SITES)
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "completed")
        with pytest.raises(NotWitnessed, match=f"{NEEDED} of its hospitals"):
            await world.command("study.release", study=study.id)
        assert "model.released" not in world.home.types()
