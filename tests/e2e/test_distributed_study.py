"""Distributed DP-SGD with real processes: the study that ships, shortened; one hospital dies in its middle.

Its certificates state both guarantees: the one of sums over hospitals, and what is left of it where secure aggregation
fails.
"""

from pathlib import Path

import pytest

from tests.e2e.faulty_world import Break, Nursery, faulty_consortium, until
from tests.e2e.world import CONFIGS, SITES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STUDY = "heart-disease-distributed"
VICTIM, HOLDER = "switzerland", "va-long-beach"
ROUNDS, DIES_IN = 7, 3
DEATH = Break(round=DIES_IN, moment="before-upload", how="kill")
# The next round waits for the victim, so that the one after it is planned with everybody again.
HOLD = Break(round=DIES_IN + 1, moment="before-upload", how="hold")


def test_a_distributed_study_outlives_a_dead_agent_and_certifies_both_guarantees(
    tmp_path: Path, nursery: Nursery
) -> None:
    with faulty_consortium(tmp_path, nursery, {VICTIM: [DEATH], HOLDER: [HOLD]}) as world:
        world.source, world.study_id = CONFIGS / "studies" / f"{STUDY}.yaml", STUDY
        world.submit(rounds=ROUNDS, every_rounds=ROUNDS)
        until(lambda: world.reached(VICTIM, DEATH), "the victim to die")
        world.child(VICTIM).wait()
        world.away(VICTIM)
        world.closed(DIES_IN)  # three shares are enough, and are what the noise was calibrated to
        world.start_agent(VICTIM)
        world.present(VICTIM)
        world.go(HOLD.round)
        world.wait_for(lambda s: s["state"] == "completed", "the study to end", 300)
        assert world.survivors(DIES_IN) == [site for site in SITES if site != VICTIM]
        for number in (1, 2, *range(DIES_IN + 2, ROUNDS + 2)):
            assert world.survivors(number) == list(SITES)

        until(
            lambda: {e["actor"] for e in world.entries() if e["type"] == "dp.certificate"} == {*AGENTS}, "certificates"
        )
        log = world.entries()
        certificates = {e["actor"]: e["body"] for e in log if e["type"] == "dp.certificate"}
        for body in certificates.values():
            assert (body["trust"], body["threshold"], body["colluding"], body["honest"]) == ("distributed", 3, 0, 3)
            assert body["event"]["shares"] == 3
            # By itself a hospital's vector has one share of three: a weaker promise, and it is said.
            assert 0 < body["epsilon"] < 1 < body["epsilon_unmasked"]
        # What the victim trained before it died was drawn and charged, though no sum has it.
        spent = [e["round"] for e in log if e["type"] == "dp.spent" and e["actor"] == f"site:{VICTIM}"]
        assert str(DIES_IN) in spent
        assert certificates[f"site:{VICTIM}"]["event"]["steps"] == len(spent)

        assert world.verified_evidence().rstrip().endswith("VERIFIED")
        # The victim's own log of what left has survived its death, and agrees with what it signed for.
        seen, checked = world.hospitals_view(VICTIM)
        assert "FAIL" not in seen
        assert checked.rstrip().endswith("VERIFIED")
        assert f"exported by site {VICTIM}, with the key that entry" in checked
        (model,) = [e["body"] for e in world.entries() if e["type"] == "model.certificate"]
        assert (model["trust"], model["missing"]) == ("distributed", [])
        assert model["epsilon"] == max(body["epsilon"] for body in certificates.values())
        assert model["epsilon_unmasked"] == max(body["epsilon_unmasked"] for body in certificates.values())
        said = " ".join(world.run("site-agent", "certificate", STUDY, "--home", world.folder / VICTIM).stdout.split())
        assert "secure aggregation" in said


AGENTS = frozenset(f"site:{site}" for site in SITES)
